//! The contents of a disk: blocks that were written, and zeros where none was.
//!
//! Copies share their blocks, so that an image costs what it differs by. A fresh file system of
//! 300 MiB holds a few hundred blocks that are not zero.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The unit in which images share their contents.
const BLOCK_BYTES: usize = 4096;

type Block = Arc<[u8; BLOCK_BYTES]>;

/// The contents of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    bytes: u64,
    blocks: HashMap<u64, Block>,
}

impl Image {
    /// A disk of zeros.
    pub(crate) fn zeros(bytes: u64) -> Self {
        Self { bytes, blocks: HashMap::new() }
    }

    /// The contents of a file.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut image = Self::zeros(file.metadata()?.len());
        let mut block = [0; BLOCK_BYTES];
        for index in 0..image.bytes / BLOCK_BYTES as u64 {
            file.read_exact_at(&mut block, index * BLOCK_BYTES as u64)?;
            if block != [0; BLOCK_BYTES] {
                image.blocks.insert(index, Arc::new(block));
            }
        }
        Ok(image)
    }

    /// Makes a sparse file with these contents.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.bytes)?;
        for (index, block) in &self.blocks {
            file.write_all_at(&block[..], index * BLOCK_BYTES as u64)?;
        }
        Ok(())
    }

    /// Length of the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies what stands at `offset` into `into`.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        for (index, at, part) in spans(offset, into.len()) {
            let Some(into) = into.get_mut(part) else { return };
            match self.blocks.get(&index).and_then(|block| block.get(at..at + into.len())) {
                Some(from) => into.copy_from_slice(from),
                None => into.fill(0),
            }
        }
    }

    /// Puts `data` at `offset`; what would lie beyond the end is dropped.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let room = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let data = data.get(..room).unwrap_or(data);
        for (index, at, part) in spans(offset, data.len()) {
            let Some(from) = data.get(part) else { return };
            let block = self.blocks.entry(index).or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
            if let Some(into) = Arc::make_mut(block).get_mut(at..at + from.len()) {
                into.copy_from_slice(from);
            }
        }
    }
}

/// The blocks that a range touches: block number, offset in the block, range of the data.
fn spans(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let block_bytes = BLOCK_BYTES as u64;
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == bytes {
            return None;
        }
        let from = offset + done as u64;
        let at = usize::try_from(from % block_bytes).unwrap_or(0);
        let count = (BLOCK_BYTES - at).min(bytes - done);
        let part = done..done + count;
        done += count;
        Some((from / block_bytes, at, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_across_blocks_is_read_back_and_the_rest_is_zero() {
        let mut image = Image::zeros(5 * 4096);
        let data: Vec<u8> = (0..9000_u32).map(|at| (at % 251) as u8 + 1).collect();
        image.write(1000, &data);
        let mut back = vec![9; 5 * 4096];
        image.read(0, &mut back);
        assert_eq!(&back[1000..10_000], data.as_slice());
        assert!(back[..1000].iter().chain(&back[10_000..]).all(|byte| *byte == 0));
    }

    #[test]
    fn a_copy_keeps_what_it_was_when_the_original_changes() {
        let mut image = Image::zeros(8192);
        image.write(4000, &[1; 200]);
        let copy = image.clone();
        image.write(4000, &[2; 200]);
        let (mut old, mut new) = ([0; 200], [0; 200]);
        copy.read(4000, &mut old);
        image.read(4000, &mut new);
        assert_eq!((old, new), ([1; 200], [2; 200]));
    }

    #[test]
    fn an_image_survives_a_file_and_the_file_has_its_length() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image");
        let mut image = Image::zeros(16 * 4096);
        image.write(5 * 4096 + 512, &[7; 512]);
        image.store(&path).expect("stored");
        let back = Image::load(&path).expect("loaded");
        assert_eq!(back.bytes(), 16 * 4096);
        let mut sector = [0; 512];
        back.read(5 * 4096 + 512, &mut sector);
        assert_eq!(sector, [7; 512]);
        assert_eq!(back.blocks.len(), 1);
    }
}
