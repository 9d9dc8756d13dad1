//! Notices that the file of a SQLite database was moved, deleted, replaced or truncated while it is open.
//!
//! SQLite keeps writing to the file that it opened, wherever that is now. What it acknowledges is then not in
//! the file that the next start opens. So the service does not serve such a file.
//!
//! A file that another program overwrites in place keeps its identity. Two things show it: the file becomes
//! shorter (SQLite shortens it only in VACUUM, which the service does not run), or the number in its header
//! ([`WriteNumber`]) is not one that this store can have.
//!
//! The file is opened here once and never closed: closing it would release SQLite's locks, which belong to
//! the process.

use std::{
    fs::{self, File, Metadata},
    io,
    mem::ManuallyDrop,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{clock::Clock, database::DatabaseError};

/// Identifies a file, whatever its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|file| Self::from(&file))
    }
}

impl From<&Metadata> for FileId {
    fn from(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// A number in the header of the file, which each write check makes greater. So an earlier copy of the file
/// has a smaller one. Another store began at another random number, so its numbers are most likely much
/// smaller or much greater.
///
/// It is kept in the field "user version" (SQLite, "Database File Format", 1.3), which SQLite leaves to the
/// application. It is 0 in a file that no write check has reached, and in a backup, which would have the
/// number of the file otherwise.
#[derive(Debug, Default)]
struct WriteNumber {
    /// The greatest number that was read from the file.
    in_file: i32,
    /// The greatest number that this process has written. It is in the file after the next checkpoint.
    written: i32,
}

impl WriteNumber {
    /// Offset of the number in the header, in bytes. Its four bytes are big-endian.
    const AT: u64 = 60;

    /// How much greater than the known numbers one in the file can be: other processes that serve the same
    /// file make it greater too, each once in its interval of health checks. So a process that seldom writes
    /// finds one that grew by some more for each second since its last check.
    const AHEAD_MAX: i32 = 100_000;
    const AHEAD_MAX_PER_SECOND: i32 = 10;

    /// Reads the number. Returns 0 if the file is too short for a header.
    fn read(file: &File) -> i32 {
        let mut number = [0; 4];
        match file.read_exact_at(&mut number, Self::AT) {
            Ok(()) => i32::from_be_bytes(number),
            Err(_) => 0,
        }
    }

    /// Remembers a number that was read from the file. False if a store with the numbers known so far cannot
    /// have it.
    fn accept(&mut self, number: i32, since_last_check: Duration) -> bool {
        let known = self.in_file.max(self.written);
        let seconds = i32::try_from(since_last_check.as_secs()).unwrap_or(i32::MAX);
        let ahead_max = seconds.saturating_mul(Self::AHEAD_MAX_PER_SECOND).saturating_add(Self::AHEAD_MAX);
        let possible = self.in_file..=known.saturating_add(ahead_max);
        // Without a known number, any is possible.
        let is_possible = known == 0 || possible.contains(&number);
        if is_possible {
            self.in_file = number;
        }
        is_possible
    }
}

/// What earlier checks have found.
#[derive(Debug, Default)]
struct Known {
    /// The WAL and its index, from the first check that finds them. SQLite keeps the files while a connection
    /// is open. Without its index, another program would make a second one, and each would overwrite what the
    /// other has written.
    beside: [Option<FileId>; 2],
    /// The greatest length that the file has had, in bytes.
    length: u64,
    write_number: WriteNumber,
    /// When the last check was made.
    checked_at: Option<Instant>,
}

/// The file of an open database, with its WAL.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    path: PathBuf,
    /// Never closed.
    file: ManuallyDrop<File>,
    id: FileId,
    clock: Clock,
    /// Locked for the whole of a check: SQLite makes the file longer meanwhile, so an earlier reading must
    /// not be compared with a later one.
    known: Mutex<Known>,
    is_present: AtomicBool,
    /// Whether the file was truncated or overwritten. What it contained is lost, so it is not served again.
    is_overwritten: AtomicBool,
}

impl DatabaseFile {
    /// Remembers the file at this path, which has just been opened.
    pub(super) fn opened(path: &Path, clock: Clock) -> Result<Self, DatabaseError> {
        let opened = || -> io::Result<_> {
            let file = ManuallyDrop::new(File::open(path)?);
            let id = FileId::from(&file.metadata()?);
            Ok((file, id))
        };
        let (file, id) = opened().map_err(|_| gone(path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            id,
            clock,
            known: Mutex::default(),
            is_present: AtomicBool::new(true),
            is_overwritten: AtomicBool::new(false),
        })
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number for a write check to write, which has found `current` in the database. `first` is
    /// the number for a database that has none.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] if this process has written a greater number: another program has put
    /// an earlier content into the database, as the command `.restore` of SQLite's shell does.
    pub(super) fn next_write_number(&self, current: i32, first: i32) -> Result<i32, DatabaseError> {
        if current < self.known().write_number.written {
            self.is_overwritten.store(true, Ordering::Release);
            self.check()?;
        }
        Ok(if current == 0 { first } else { current.saturating_add(1) })
    }

    /// Remembers a number that a write check has committed.
    pub(super) fn wrote_number(&self, number: i32) {
        let written = &mut self.known().write_number.written;
        *written = number.max(*written);
    }

    /// Compares the file at the path with the open one, logs a change, and remembers the result for
    /// [`DatabaseFile::require_present`].
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] if the file, its WAL or the index of its WAL was moved, deleted or
    /// replaced, or if the file was truncated or overwritten.
    pub(super) fn check(&self) -> Result<(), DatabaseError> {
        let mut known = self.known();
        let is_present = self.is_unchanged(&mut known);
        match (self.is_present.swap(is_present, Ordering::AcqRel), is_present) {
            (true, false) if self.is_overwritten.load(Ordering::Acquire) => tracing::error!(
                "The database file {} was truncated or overwritten while it was open; it is no longer served: stop the \
                 service, and restore a backup",
                self.path.display()
            ),
            (true, false) => tracing::error!(
                "The database file {} or one of its files -wal and -shm was moved, deleted or replaced while it \
                 was open; it is no longer served: put it back, or stop the service, remove \
                 -wal and -shm, and start it with the right file",
                self.path.display()
            ),
            (false, true) => tracing::info!("The database file {} is back", self.path.display()),
            _ => {}
        }
        self.require_present()
    }

    /// Returns the result of the last check.
    ///
    /// # Errors
    /// As [`DatabaseFile::check`].
    pub(crate) fn require_present(&self) -> Result<(), DatabaseError> {
        if self.is_present.load(Ordering::Acquire) {
            return Ok(());
        }
        let is_overwritten = self.is_overwritten.load(Ordering::Acquire);
        Err(if is_overwritten { overwritten(&self.path) } else { gone(&self.path) })
    }

    fn is_unchanged(&self, known: &mut Known) -> bool {
        let beside = ["-wal", "-shm"].map(|suffix| FileId::of(&with_suffix(&self.path, suffix)).ok());
        for (known, found) in known.beside.iter_mut().zip(beside) {
            *known = known.or(found);
        }
        let Ok(file) = fs::metadata(&self.path) else { return false };
        if FileId::from(&file) != self.id || beside != known.beside {
            return false;
        }
        let is_shorter = file.len() < known.length;
        known.length = known.length.max(file.len());
        let now = self.clock.instant();
        let since_last_check = known.checked_at.map_or(Duration::ZERO, |at| now.duration_since(at));
        known.checked_at = Some(now);
        if is_shorter || !known.write_number.accept(WriteNumber::read(&self.file), since_last_check) {
            self.is_overwritten.store(true, Ordering::Release);
        }
        !self.is_overwritten.load(Ordering::Acquire)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the path of a file that is kept beside the database: its WAL, or its key.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn gone(path: &Path) -> DatabaseError {
    DatabaseError::unavailable(format!(
        "the database file {} was moved, deleted or replaced while it was open",
        path.display()
    ))
}

fn overwritten(path: &Path) -> DatabaseError {
    DatabaseError::unavailable(format!(
        "the database file {} was truncated or overwritten while it was open",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_present_only_while_it_is_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("db"), folder.path().join("aside"));
        fs::write(&path, "one").unwrap();
        let file = DatabaseFile::opened(&path, Clock::system()).unwrap();
        assert!(file.check().is_ok());

        fs::rename(&path, &aside).unwrap();
        assert!(file.check().is_err() && file.require_present().is_err());
        fs::write(&path, "two").unwrap();
        assert!(file.check().is_err());
        fs::rename(&aside, &path).unwrap();
        assert!(file.check().is_ok() && file.require_present().is_ok());
    }

    #[test]
    fn a_file_that_becomes_shorter_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, "one").unwrap();
        let file = DatabaseFile::opened(&path, Clock::system()).unwrap();
        assert!(file.check().is_ok());
        fs::write(&path, "longer").unwrap();
        assert!(file.check().is_ok(), "SQLite makes a file longer");

        fs::write(&path, "two").unwrap();
        assert!(file.check().is_err());
        fs::write(&path, "longer again").unwrap();
        assert!(file.check().is_err(), "what it contained is still lost");
    }

    /// A file of 100 bytes with this number in its header.
    fn with_number(number: i32) -> Vec<u8> {
        let mut bytes = vec![0; 100];
        bytes[60..64].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    #[test]
    fn a_file_that_grows_during_the_checks_of_several_threads_stays_present() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, with_number(1)).unwrap();
        let file = DatabaseFile::opened(&path, Clock::system()).unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Acquire) {
                        file.check().unwrap();
                    }
                });
            }
            let grow = File::options().write(true).open(&path).unwrap();
            for number in 2..20_000_i32 {
                let length = 100 + u64::try_from(number).unwrap();
                grow.write_all_at(&number.to_be_bytes(), WriteNumber::AT).unwrap();
                grow.write_all_at(b"x", length).unwrap();
            }
            is_done.store(true, Ordering::Release);
        });
    }

    #[test]
    fn a_file_overwritten_by_another_of_the_same_length_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let open = || {
            fs::write(&path, with_number(1_000)).unwrap();
            DatabaseFile::opened(&path, Clock::system()).unwrap()
        };
        for (next, expected) in [
            (with_number(1_000), true),
            (with_number(1_001), true),
            (with_number(0), false),
            (with_number(999), false),
            (with_number(-5), false),
            (with_number(1_000_000_000), false),
        ] {
            let file = open();
            assert!(file.check().is_ok());
            fs::write(&path, next).unwrap();
            assert_eq!(file.check().is_ok(), expected);
        }
    }

    #[test]
    fn the_number_may_grow_by_more_after_a_long_time() {
        let (hour, week) = (Duration::from_hours(1), Duration::from_hours(7 * 24));
        for (number, since_last_check, expected) in
            [(100_001, Duration::ZERO, true), (300_000, hour, false), (300_000, week, true), (0, week, false)]
        {
            let mut known = WriteNumber { in_file: 1, written: 1 };
            assert_eq!(known.accept(number, since_last_check), expected);
        }
    }

    #[test]
    fn the_number_of_write_checks_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, with_number(0)).unwrap();
        let file = DatabaseFile::opened(&path, Clock::system()).unwrap();
        assert_eq!(file.next_write_number(0, 70).unwrap(), 70, "the first one is random");
        file.wrote_number(70);
        assert_eq!(file.next_write_number(70, 9).unwrap(), 71);
        assert_eq!(file.next_write_number(75, 9).unwrap(), 76, "another instance has counted");

        // A checkpoint of another instance that is ahead of this one.
        fs::write(&path, with_number(90)).unwrap();
        assert!(file.check().is_ok());
        fs::write(&path, with_number(70)).unwrap();
        assert!(file.check().is_err());
    }

    #[test]
    fn a_smaller_number_in_the_database_shows_an_earlier_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, with_number(0)).unwrap();
        let file = DatabaseFile::opened(&path, Clock::system()).unwrap();
        file.wrote_number(70);
        assert!(file.next_write_number(0, 9).is_err());
        assert!(file.check().is_err(), "and stays lost");
    }

    #[test]
    fn the_wal_and_its_index_are_part_of_the_database() {
        for suffix in ["-wal", "-shm"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("db");
            let beside = with_suffix(&path, suffix);
            fs::write(&path, "one").unwrap();
            let file = DatabaseFile::opened(&path, Clock::system()).unwrap();
            assert!(file.check().is_ok());
            fs::write(&beside, "log").unwrap();
            assert!(file.check().is_ok());

            // As SQLite does. The file system gives the number of a closed file to a new one.
            let open = File::open(&beside).unwrap();
            fs::remove_file(&beside).unwrap();
            assert!(file.check().is_err());
            fs::write(&beside, "another").unwrap();
            assert!(file.check().is_err());
            drop(open);
        }
    }
}
