//! Which files others on this machine can read or change, of those that hold keys or clients' data.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Config;

/// Nobody but owner and group has any business with the file, and the group none in changing it. (A
/// group that reads is somebody's decision: `root:batchkeeper 0640`, systemd's credentials.)
const FILE: u32 = 0o027;
/// Who may write in a folder can put other files in the place of those in it.
const FOLDER: u32 = 0o022;

impl Config {
    /// What is open to others and should not be, each as a sentence; `own` is the configuration's file.
    pub fn exposed(&self, own: &Path) -> Vec<String> {
        let beside = |suffix: &str| {
            let mut name = self.database.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let mut files: Vec<PathBuf> = ["", "-wal", "-shm"].map(beside).into();
        files.extend(self.key_files().map(Path::to_owned));
        if self.clients.iter().any(|client| !client.keys.is_empty()) {
            files.push(own.to_owned());
        }
        files.sort();
        files.dedup();
        let folder = self.database.parent().unwrap_or(Path::new("."));
        let mut found: Vec<String> = files
            .iter()
            .filter_map(|it| open_to_others(it, FILE))
            .collect();
        found.extend(open_to_others(folder, FOLDER));
        found
    }

    /// Every file that holds a key or a token.
    fn key_files(&self) -> impl Iterator<Item = &Path> {
        let of_clients = self.clients.iter().flat_map(|client| {
            let own = client.webhook_key_file.iter();
            client.key_files.iter().chain(own)
        });
        let others = [
            &self.openai.api_key_file,
            &self.ops_token_file,
            &self.alerts.webhook_key_file,
        ];
        of_clients
            .chain(others.into_iter().flatten())
            .map(PathBuf::as_path)
    }

    /// Key files that systemd puts in place while the service runs (`LoadCredential=`), and only then.
    pub fn credentials_to_come(&self) -> Vec<PathBuf> {
        self.key_files()
            .filter(|path| path.starts_with("/run/credentials") && !path.exists())
            .map(Path::to_owned)
            .collect()
    }
}

/// A file that is not there is nobody's; whoever needs it says so.
fn open_to_others(path: &Path, bits: u32) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    let (shown, right) = (path.display(), mode & !bits);
    (mode & bits != 0)
        .then(|| format!("{shown} has mode {mode:04o}, open to others: chmod {right:04o} {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = format!(
            "database = {:?}\nops_token_file = {:?}\n[[clients]]\nname = \"a\"\nkey_files = [{:?}]\n\
             [[clients]]\nname = \"b\"\nkeys = [\"0123456789abcdef0123\"]\n[openai]\napi_key_file = {:?}\n",
            path("db"),
            path("token"),
            path("a.key"),
            path("openai.key")
        );
        let set = |name: &str, mode| {
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        for name in ["db", "token", "a.key", "openai.key", "config.toml"] {
            fs::write(path(name), "0123456789abcdef0123\n").unwrap();
            set(name, 0o640);
        }
        let config = Config::parse(&text).unwrap();
        let exposed = || config.exposed(&path("config.toml"));
        assert_eq!(exposed(), [""; 0]);
        for name in ["db", "token", "a.key", "openai.key", "config.toml"] {
            set(name, 0o644);
            let [told] = &exposed()[..] else {
                panic!("{:?}", exposed());
            };
            let shown = path(name);
            assert_eq!(
                *told,
                format!(
                    "{0} has mode 0644, open to others: chmod 0640 {0}",
                    shown.display()
                )
            );
            set(name, 0o600);
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(exposed()[0].ends_with(&format!("chmod 1755 {}", folder.path().display())));
    }
}
