//! Runs a program of the operator: no shell, an empty environment, a text on its standard input, ten seconds.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crossbeam_channel::never;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::base::clock::{Clock, SystemClock};
use crate::base::escape::escape_controls;

/// How long the program may run. After that, it and its children are killed.
pub const PROGRAM_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two looks at the program.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of its standard error that are kept; the rest is read and dropped.
const MOST_KEPT: usize = 2_000;
/// Characters of its standard error that an error shows.
const MOST_SHOWN: usize = 500;

/// Why a program did not take its input.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be run.
    #[error("the program cannot be run: {0}")]
    Start(io::Error),
    /// It still ran after [`PROGRAM_TIMEOUT`].
    #[error("the program did not end within 10 s and was killed")]
    Timeout,
    /// It ended with an error.
    #[error("the program ended with {status}: {said}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The start of its standard error.
        said: String,
    },
}

/// Runs `command` (a program and its arguments) with `input`, and waits for its end.
///
/// The program runs in the root directory and in a process group of its own. What it left running there is killed
/// when it ends. Its standard output is dropped.
///
/// # Errors
/// If it cannot be run, does not end in time, or ends with another status than 0.
pub fn run_program(command: &[String], input: &[u8]) -> Result<(), ProgramError> {
    let (program, arguments) = command.split_first().ok_or_else(|| {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "no program is named");
        ProgramError::Start(error)
    })?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ProgramError::Start)?;
    let watched = watch(&mut child, input);
    // The children that it left are killed before its end is collected: until then its number belongs to it.
    let killed = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let ended = child.wait().map_err(ProgramError::Start)?;
    if let Err(error) = killed {
        // A group whose last member has ended is no error.
        log::debug!(event = "program_group_gone", error:%; "");
    }
    match watched.map_err(ProgramError::Start)? {
        None => Err(ProgramError::Timeout),
        Some(_) if ended.success() => Ok(()),
        Some(said) => Err(ProgramError::Failed { status: ended, said }),
    }
}

/// Feeds the program until it ends. Returns the start of its standard error, or `None` if its time was over first.
fn watch(child: &mut Child, input: &[u8]) -> io::Result<Option<String>> {
    let (mut stdin, mut stderr) = (child.stdin.take(), child.stderr.take());
    if let Some(pipe) = &stdin {
        fcntl_setfl(pipe.as_fd(), OFlags::NONBLOCK)?;
    }
    if let Some(pipe) = &stderr {
        fcntl_setfl(pipe.as_fd(), OFlags::NONBLOCK)?;
    }
    let (mut input, mut said) = (input, Vec::new());
    let clock = SystemClock::new();
    let started = clock.now().steady;
    loop {
        let has_ended = waitid(
            WaitId::Pid(Pid::from_child(child)),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
        )?
        .is_some();
        if let Some(pipe) = &mut stdin
            && !write_on(pipe, &mut input)
        {
            stdin = None;
        }
        if let Some(pipe) = &mut stderr {
            read_on(pipe, &mut said);
        }
        if has_ended {
            let text = escape_controls(String::from_utf8_lossy(&said).trim());
            return Ok(Some(text.chars().take(MOST_SHOWN).collect()));
        }
        if clock.now().steady - started >= PROGRAM_TIMEOUT {
            return Ok(None);
        }
        never::<()>().recv_timeout(LOOK).ok();
    }
}

/// Writes what the pipe takes now; returns whether there is more to write. A program that does not read all of its
/// input may be content with less: its exit status says so.
fn write_on(pipe: &mut impl Write, input: &mut &[u8]) -> bool {
    while !input.is_empty() {
        match pipe.write(input) {
            Ok(written) => *input = &input[written..],
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    false
}

/// Reads what is in the pipe now, at most a pipe's capacity, and keeps the start of it.
fn read_on(pipe: &mut impl Read, kept: &mut Vec<u8>) {
    let mut buffer = [0; 8 * 1024];
    for _ in 0..8 {
        match pipe.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                let left = MOST_KEPT.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..read.min(left)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, input: &[u8]) -> Result<(), ProgramError> {
        run_program(&["/bin/sh".into(), "-c".into(), script.into()], input)
    }

    fn file(folder: &tempfile::TempDir, name: &str) -> String {
        folder.path().join(name).display().to_string()
    }

    /// Waits until the process whose id stands in a file has ended: it is gone, or not collected yet.
    fn wait_until_gone(id_file: &str) {
        let id = std::fs::read_to_string(id_file).expect("a file");
        let stat = format!("/proc/{}/stat", id.trim());
        while std::fs::read_to_string(&stat)
            .is_ok_and(|text| !text.contains(") Z ") && !text.contains(") X "))
        {
            never::<()>().recv_timeout(LOOK).ok();
        }
    }

    #[test]
    fn a_program_gets_its_input_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let (got, environment) = (file(&folder, "got"), file(&folder, "environment"));
        // dash adds PWD by itself, and reads of a file by the shell need no program.
        let script = format!(
            "/bin/cat > {got}; /usr/bin/env -i /usr/bin/tr '\\0' '\\n' < /proc/$$/environ > {environment}"
        );
        run(&script, b"a text\n").expect("it ends with 0");
        assert_eq!(std::fs::read(got).expect("a file"), b"a text\n");
        assert_eq!(std::fs::read_to_string(environment).expect("a file"), "");
    }

    #[test]
    fn the_way_it_ends_is_reported() {
        for (script, said) in [
            (
                "echo 'no \u{1b}[31mroute' >&2; exit 3",
                Some("exit status: 3: no \\u{1b}[31mroute"),
            ),
            ("kill -9 $$", Some("signal: 9")),
            // More than a pipe holds, on both outputs.
            ("yes | head -c 3000000 >&2; yes | head -c 3000000; exit 0", None),
            ("yes | head -c 3000000 >&2; exit 1", Some("y\\ny\\n")),
            // Input that is not read is no error.
            ("exec <&-; exit 0", None),
        ] {
            let ended = run(&format!("PATH=/usr/bin:/bin; {script}"), &vec![b'x'; 300_000]);
            match (said, ended) {
                (None, Ok(())) => {}
                (Some(said), Err(error)) => {
                    let text = error.to_string();
                    assert!(text.contains(said) && text.len() < 1_000, "{script}: {text}");
                }
                (_, ended) => panic!("{script}: {ended:?}"),
            }
        }
        let missing = run_program(&["/nonexistent/program".into()], b"");
        assert!(matches!(missing, Err(ProgramError::Start(_))), "{missing:?}");
    }

    #[test]
    fn children_that_it_leaves_are_killed_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (child, late) = (file(&folder, "child"), file(&folder, "late"));
        let clock = SystemClock::new();
        let started = clock.now().steady;
        // The child holds the pipes open.
        let script = format!("PATH=/usr/bin:/bin; (sleep 600; touch {late}) & echo $! > {child}; exit 0");
        run(&script, b"x").expect("it ends with 0");
        assert!(clock.now().steady - started < PROGRAM_TIMEOUT);
        wait_until_gone(&child);
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().expect("a folder");
        let child = file(&folder, "child");
        let script = format!("PATH=/usr/bin:/bin; sleep 600 & echo $! > {child}; wait");
        let ended = run(&script, b"x");
        assert!(matches!(ended, Err(ProgramError::Timeout)), "{ended:?}");
        wait_until_gone(&child);
    }
}
