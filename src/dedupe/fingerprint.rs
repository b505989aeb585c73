//! (source, tenant, event key) to a 128-bit fingerprint, under a secret of this installation.
//!
//! `SipHash` 2-4 with 128 bits of output: without the secret nobody can make two keys meet, or
//! crowd the table. Every piece goes in behind its length, so no two tuples make the same bytes.
//! What is hashed is a format: the log keeps fingerprints, and with another order or another
//! width of the lengths it would no longer say which events are known.
//!
//! The secret stands in `dedupe.key` in the data folder, mode 0600, made at the first start. The
//! fingerprints in the log were made with it: without it the log no longer says which events are
//! known, and with a wrong one it would not even say that. So it stands there twice, each time
//! with a digest behind it; one that holds is enough, and the other is mended.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use forebay_log::Key;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use siphasher::sip128::{Hasher128, SipHasher24};
use thiserror::Error;

/// The file of the secret, in the data folder.
const SECRET_FILE: &str = "dedupe.key";
const SECRET_BYTES: usize = 16;
/// The secret and as many bytes of its SHA-256.
const COPY_BYTES: usize = 2 * SECRET_BYTES;
const FILE_BYTES: usize = 2 * COPY_BYTES;
/// Most event keys, with their source and tenant, are shorter than this.
const HELD_BYTES: usize = 192;
/// Stands for the length of a piece that is absent; no slice is that long.
const ABSENT: u64 = u64::MAX;

/// Makes keys. Cheap to clone; its `Debug` says nothing of the secret.
#[derive(Clone)]
pub struct Fingerprinter(SipHasher24);

/// Where the secret came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file was there.
    Found,
    /// It was made now. Where lanes already hold records, that is a loss to tell the operator.
    Made,
}

/// Why there is no secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read, or not be made.
    #[error(
        "cannot {doing} {path}, the secret of the event fingerprints; \
         make it readable and writable for the user that runs forebay"
    )]
    Io {
        /// `read` or `make`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither of the two in the file holds.
    #[error(
        "{path} no longer holds the secret of the event fingerprints; restore it from a backup, \
         or remove it and accept that events already in the log are no longer known as duplicates"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes for {path}; see that getrandom(2) is allowed")]
    Random {
        /// The file that was to be made.
        path: PathBuf,
    },
}

impl Fingerprinter {
    /// With a secret from elsewhere.
    pub fn new(secret: &[u8; SECRET_BYTES]) -> Self {
        Self(SipHasher24::new_with_key(secret))
    }

    /// With the secret in `data_dir`, made durable there first if there is none.
    pub fn open(data_dir: &Path) -> Result<(Self, Origin), SecretError> {
        let path = data_dir.join(SECRET_FILE);
        if let Some(found) = find(data_dir, &path)? {
            return Ok((found, Origin::Found));
        }
        // Of two that start at once only one makes it, or one would work with a secret that the
        // file does not have.
        let _alone = alone(data_dir).map_err(|source| {
            let path = path.clone();
            SecretError::Io { doing: "make", path, source }
        })?;
        match find(data_dir, &path)? {
            Some(found) => Ok((found, Origin::Found)),
            None => Ok((Self::new(&make(data_dir, &path)?), Origin::Made)),
        }
    }

    /// The key of the event that `parts` identify within a source and a tenant.
    pub fn fingerprint<'p>(
        &self,
        source: &str,
        tenant: Option<&str>,
        parts: impl IntoIterator<Item = &'p [u8]>,
    ) -> Key {
        let mut pieces = Pieces { hasher: self.0, held: [0; HELD_BYTES], length: 0 };
        pieces.put_whole(source.as_bytes());
        match tenant {
            Some(tenant) => pieces.put_whole(tenant.as_bytes()),
            None => pieces.put(&ABSENT.to_le_bytes()),
        }
        for part in parts {
            pieces.put_whole(part);
        }
        pieces.key()
    }

    /// A keyed digest of a credential, which can be compared and not turned back.
    pub fn digest(&self, credential: &[u8]) -> [u8; 16] {
        let mut hasher = self.0;
        // A length that no source's name has, so that a digest is never an event's fingerprint.
        hasher.write(&ABSENT.to_le_bytes());
        hasher.write(credential);
        hasher.finish128().as_bytes()
    }
}

/// Gathers what is short before it is hashed: the hasher is three times slower by small pieces.
struct Pieces {
    hasher: SipHasher24,
    held: [u8; HELD_BYTES],
    length: usize,
}

impl Pieces {
    /// A piece behind its length.
    fn put_whole(&mut self, piece: &[u8]) {
        self.put(&(piece.len() as u64).to_le_bytes());
        self.put(piece);
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(free) = self.held.get_mut(self.length..self.length + bytes.len()) {
            free.copy_from_slice(bytes);
            self.length += bytes.len();
            return;
        }
        self.flush();
        self.hasher.write(bytes);
    }

    fn flush(&mut self) {
        self.hasher.write(self.held.get(..self.length).unwrap_or_default());
        self.length = 0;
    }

    fn key(mut self) -> Key {
        self.flush();
        Key(self.hasher.finish128().as_bytes())
    }
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter(..)")
    }
}

/// The secret of the file, if it is there.
fn find(data_dir: &Path, path: &Path) -> Result<Option<Fingerprinter>, SecretError> {
    let path = path.to_owned();
    let found = match read(&path) {
        Ok(found) => found,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SecretError::Io { doing: "read", path, source }),
    };
    let Some(secret) = secret_in(&found) else { return Err(SecretError::Damaged { path }) };
    if found != copy_of(&secret).repeat(2) {
        // Whether this works or not, the secret is known.
        drop(keep(data_dir, &path, &secret));
    }
    Ok(Some(Fingerprinter::new(&secret)))
}

/// Keeps others who want the same out, until it is dropped.
fn alone(data_dir: &Path) -> io::Result<File> {
    let folder = File::open(data_dir)?;
    folder.lock()?;
    Ok(folder)
}

/// What is in the file, whatever it means; longer than it can be by a byte at most.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut found = Vec::with_capacity(FILE_BYTES + 1);
    File::open(path)?.take(FILE_BYTES as u64 + 1).read_to_end(&mut found)?;
    Ok(found)
}

/// The secret, of whichever copy holds.
fn secret_in(found: &[u8]) -> Option<[u8; SECRET_BYTES]> {
    found.chunks_exact(COPY_BYTES).find_map(|copy| {
        let secret = *copy.first_chunk::<SECRET_BYTES>()?;
        (copy == copy_of(&secret)).then_some(secret)
    })
}

/// The bytes of one copy.
fn copy_of(secret: &[u8; SECRET_BYTES]) -> Vec<u8> {
    let digest = digest(&SHA256, secret);
    [secret, digest.as_ref().get(..SECRET_BYTES).unwrap_or_default()].concat()
}

fn make(data_dir: &Path, path: &Path) -> Result<[u8; SECRET_BYTES], SecretError> {
    let mut secret = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| SecretError::Random { path: path.to_owned() })?;
    keep(data_dir, path, &secret).map_err(|source| SecretError::Io {
        doing: "make",
        path: path.to_owned(),
        source,
    })?;
    Ok(secret)
}

/// Whole and durable, or not there: written beside its place, synced, renamed.
fn keep(data_dir: &Path, path: &Path, secret: &[u8; SECRET_BYTES]) -> io::Result<()> {
    let beside = path.with_extension("key.new");
    // What a crash left here may have another mode; it was never in use.
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(&copy_of(secret).repeat(2))?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(all(test, not(forebay_loom)))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(source: &str, tenant: Option<&str>, parts: &[&str]) -> Key {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        Fingerprinter::new(b"0123456789abcdef").fingerprint(source, tenant, parts)
    }

    #[test]
    fn tuples_that_concatenate_alike_have_different_keys() {
        let keys = [
            key("ab", None, &["c"]),
            key("a", None, &["bc"]),
            key("a", None, &["b", "c"]),
            key("a", None, &["bc", ""]),
            key("a", Some("b"), &["c"]),
            key("a", Some("bc"), &[]),
            key("a", Some(""), &["bc"]),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == one), Some(index));
        }
    }

    #[test]
    fn a_long_key_is_the_hash_of_the_same_bytes_as_a_short_one() {
        for length in [0, 1, 150, 175, 176, 177, 1_000] {
            let part = vec![7; length];
            let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0, b's'];
            bytes.extend([0xff; 8]);
            bytes.extend((length as u64).to_le_bytes());
            bytes.extend(&part);
            let secret = b"0123456789abcdef";
            let whole = SipHasher24::new_with_key(secret).hash(&bytes).as_bytes();
            assert_eq!(Fingerprinter::new(secret).fingerprint("s", None, [&part[..]]), Key(whole));
        }
    }

    #[test]
    fn the_key_depends_on_the_secret() {
        let other = Fingerprinter::new(b"another secret!!");
        assert_ne!(other.fingerprint("a", None, [&b"b"[..]]), key("a", None, &["b"]));
    }

    #[test]
    fn the_secret_is_made_once_readable_by_its_owner_alone_and_found_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let (first, origin) = Fingerprinter::open(dir.path()).expect("made");
        assert_eq!(origin, Origin::Made);
        let mode = fs::metadata(dir.path().join(SECRET_FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (second, origin) = Fingerprinter::open(dir.path()).expect("found");
        assert_eq!(origin, Origin::Found);
        assert_eq!(
            first.fingerprint("a", None, [&b"b"[..]]),
            second.fingerprint("a", None, [&b"b"[..]])
        );
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn all_who_start_at_once_have_the_secret_that_stays() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().expect("a folder");
            let open = || Fingerprinter::open(dir.path()).expect("made or found");
            let together = std::sync::Barrier::new(4);
            let opened: Vec<_> = std::thread::scope(|scope| {
                let starts = [(); 4].map(|()| {
                    scope.spawn(|| {
                        together.wait();
                        open()
                    })
                });
                starts.into_iter().map(|start| start.join().expect("no panic")).collect()
            });
            let key = |of: &Fingerprinter| of.fingerprint("a", None, [&b"b"[..]]);
            let stays = key(&open().0);
            assert!(opened.iter().all(|(of, _)| key(of) == stays));
            assert_eq!(opened.iter().filter(|(_, origin)| *origin == Origin::Made).count(), 1);
        }
    }

    #[test]
    fn what_a_crash_left_beside_it_does_not_matter() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("dedupe.key.new"), b"torn").expect("written");
        Fingerprinter::open(dir.path()).expect("made");
    }

    #[test]
    fn a_flipped_bit_and_a_cut_of_one_copy_is_survived_and_mended() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(SECRET_FILE);
        let (first, _) = Fingerprinter::open(dir.path()).expect("made");
        let known = first.fingerprint("a", None, [&b"b"[..]]);
        let whole = fs::read(&path).expect("there");
        let flip = |bit: usize| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        let cut = (COPY_BYTES..FILE_BYTES).step_by(5).map(|bytes| whole[..bytes].to_vec());
        let longer = [whole.as_slice(), b"x"].concat();
        for harmed in (0..8 * FILE_BYTES).step_by(7).map(flip).chain(cut).chain([longer]) {
            fs::write(&path, harmed).expect("written");
            let (found, origin) = Fingerprinter::open(dir.path()).expect("a copy holds");
            assert_eq!(origin, Origin::Found);
            assert_eq!(found.fingerprint("a", None, [&b"b"[..]]), known);
            assert_eq!(fs::read(&path).expect("there"), whole);
        }
    }

    #[test]
    fn a_file_in_which_nothing_holds_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a folder");
        for wrong in [&b""[..], b"sixteen bytes...", &[0; COPY_BYTES], &[7; FILE_BYTES]] {
            fs::write(dir.path().join(SECRET_FILE), wrong).expect("written");
            let error = Fingerprinter::open(dir.path()).expect_err("refused").to_string();
            assert!(error.contains("dedupe.key no longer holds"), "{error}");
        }
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_an_error_and_not_a_new_secret() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join(SECRET_FILE)).expect("made");
        let error = Fingerprinter::open(dir.path()).expect_err("refused").to_string();
        assert!(error.starts_with("cannot read"), "{error}");
    }

    #[test]
    fn debug_does_not_say_the_secret() {
        let shown = format!("{:?}", Fingerprinter::new(b"0123456789abcdef"));
        assert_eq!(shown, "Fingerprinter(..)");
    }
}
