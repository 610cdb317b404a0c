//! What the platform added to this machine's network, on disk before it is added: after `kill -9` the next start knows
//! what is its own to reuse or to take away, and touches nothing else.

use std::{collections::BTreeSet, fmt, fs, io, io::Write, path::PathBuf};

use ipnet::IpNet;

/// One thing that was added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// An address on an interface.
    Address { device: String, net: IpNet },
    /// A bridge with everything on it.
    Bridge(String),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { device, net } => write!(f, "address {device} {net}"),
            Self::Bridge(name) => write!(f, "bridge {name}"),
        }
    }
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["address", device, net] => Some(Self::Address { device: (*device).to_owned(), net: net.parse().ok()? }),
            ["bridge", name] => Some(Self::Bridge((*name).to_owned())),
            _ => None,
        }
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    entries: BTreeSet<Entry>,
}

impl Ledger {
    /// Reads the file; there is none at first.
    ///
    /// # Errors
    /// When it is there and can't be read or understood: to guess would be to touch what is somebody else's.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let damaged = |line: &str| io::Error::other(format!("{} is damaged at '{line}'", path.display()));
        let entries = text.lines().map(|line| Entry::parse(line).ok_or_else(|| damaged(line)));
        let entries = entries.collect::<io::Result<_>>()?;
        Ok(Self { path, entries })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        self.entries.contains(entry)
    }

    /// Notes something that is about to be added.
    pub(crate) fn note(&mut self, entry: Entry) -> io::Result<()> {
        if self.entries.insert(entry.clone())
            && let Err(error) = self.write()
        {
            self.entries.remove(&entry);
            return Err(error);
        }
        Ok(())
    }

    /// Forgets something that is gone.
    pub(crate) fn forget(&mut self, entry: &Entry) -> io::Result<()> {
        if self.entries.remove(entry) { self.write() } else { Ok(()) }
    }

    fn write(&self) -> io::Result<()> {
        let next = self.path.with_extension("next");
        let mut file = fs::File::create(&next)?;
        for entry in &self.entries {
            writeln!(file, "{entry}")?;
        }
        file.sync_all()?;
        fs::rename(next, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_back_and_a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("networks.txt");
        let mut ledger = Ledger::open(path.clone()).unwrap();
        assert!(ledger.is_empty());
        let entries = [
            Entry::Bridge("cm0123456789".to_owned()),
            Entry::Address { device: "eth0".to_owned(), net: "10.0.0.5/32".parse().unwrap() },
            Entry::Address { device: "cm0123456789".to_owned(), net: "fd00::1/64".parse().unwrap() },
        ];
        for entry in &entries {
            ledger.note(entry.clone()).unwrap();
        }
        ledger.forget(&entries[1]).unwrap();
        let read = Ledger::open(path.clone()).unwrap();
        assert_eq!(read.entries().count(), 2);
        assert!(read.holds(&entries[0]) && !read.holds(&entries[1]) && read.holds(&entries[2]));
        for damage in ["address eth0", "address eth0 10.0.0.5/33", "bridge", "bridge a b", "route x"] {
            fs::write(&path, damage).unwrap();
            assert!(Ledger::open(path.clone()).is_err(), "{damage}");
        }
    }
}
