//! Modes of files with keys or clients' data: whether other users of this machine can read or change them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::alerts::ReceiverConfig;
use super::{Config, SecretSource};

/// Bits that a file must not have: the group's right to write, and every right of others. The group may
/// read, as with `root:batchkeeper 0640` and with systemd's credentials.
const FILE: u32 = 0o027;
/// Bits that a folder must not have. Users that write in it can replace its files.
const FOLDER: u32 = 0o022;

impl Config {
    /// A sentence for each file and folder that is open to others and should not be. `config_file` is the
    /// configuration's own file.
    pub fn exposed_files(&self, config_file: &Path) -> Vec<String> {
        let beside_database = |suffix: &str| {
            let mut name = self.database.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let mut files: Vec<PathBuf> = ["", "-wal", "-shm"].map(beside_database).into();
        files.extend(self.key_files().map(Path::to_owned));
        let of_receivers = self.alert_receivers.iter().flat_map(ReceiverConfig::secrets);
        let mut secrets = self.openai.headers.values().chain(of_receivers);
        if self.clients.iter().any(|client| !client.keys.is_empty()) || secrets.any(SecretSource::is_value) {
            files.push(config_file.to_owned());
        }
        files.sort();
        files.dedup();
        let authorities = [&self.network.ca_file, &self.openai.ca_file];
        let folder = self.database.parent().unwrap_or(Path::new("."));
        let mut found: Vec<String> = files
            .iter()
            .filter_map(|it| describe_exposure(it, FILE))
            .collect();
        found.extend(describe_exposure(folder, FOLDER));
        // Anyone may read them.
        found.extend(
            authorities
                .into_iter()
                .flatten()
                .filter_map(|it| describe_exposure(it, FOLDER)),
        );
        found
    }

    /// Every file that holds a key or a token.
    fn key_files(&self) -> impl Iterator<Item = &Path> {
        let of_clients = self.clients.iter().flat_map(|client| {
            let of_webhooks = client.webhook_key_file.iter();
            client.key_files.iter().chain(of_webhooks)
        });
        let others = [
            &self.openai.api_key_file,
            &self.ops_token_file,
            &self.ops_read_token_file,
            &self.alerts.webhook_key_file,
        ];
        let of_headers = self.openai.headers.values();
        let of_receivers = self.alert_receivers.iter().flat_map(ReceiverConfig::secrets);
        let sources = of_headers.chain(of_receivers).filter_map(SecretSource::file);
        of_clients
            .chain(sources)
            .chain(others.into_iter().flatten())
            .map(PathBuf::as_path)
    }

    /// Key files that exist only while the service runs, because systemd provides them (`LoadCredential=`).
    pub fn missing_credentials(&self) -> Vec<PathBuf> {
        self.key_files()
            .filter(|path| path.starts_with("/run/credentials") && !path.exists())
            .map(Path::to_owned)
            .collect()
    }
}

/// A sentence about a path that has one of `bits`. A path that does not exist is not exposed.
fn describe_exposure(path: &Path, bits: u32) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    let (shown, right) = (path.display(), mode & !bits);
    (mode & bits != 0)
        .then(|| format!("{shown} has mode {mode:04o}, open to others: chmod {right:04o} {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_others_can_read_are_named() {
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
        let exposed = || config.exposed_files(&path("config.toml"));
        assert_eq!(exposed(), [""; 0]);
        for name in ["db", "token", "a.key", "openai.key", "config.toml"] {
            set(name, 0o644);
            let [found] = &exposed()[..] else {
                panic!("{:?}", exposed());
            };
            let shown = path(name);
            assert_eq!(
                *found,
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
