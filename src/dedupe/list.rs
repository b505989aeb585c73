//! The blocks and generations of a table at one moment, and what they know of a key.

use std::sync::Arc;

use super::atomic::{Ordering, fence};
use super::block::{Block, Held, Words};
use super::generation::{Found, Generation};

/// So many whole blocks stand sealed beside the active one.
pub(super) const SEALED_WHOLE: usize = 7;
/// The same with smaller ones among them: that which was sealed early, and the few behind it that
/// had been made before anyone knew how many keys would come.
pub(super) const SEALED_MAX: usize = 12;

/// The blocks at one moment; replaced whole.
#[derive(Debug)]
pub(super) struct List {
    pub(super) active: Arc<Block>,
    /// Newest first.
    pub(super) sealed: Vec<Arc<Block>>,
    /// Newest first: what was sealed and has become a file. Shared by the lists that follow.
    pub(super) written: Arc<[Arc<Generation>]>,
    pub(super) spare: Option<Arc<Block>>,
    /// Left the list in a rotation, to be freed by `prepare`, never by a request.
    pub(super) retired: Vec<Arc<Block>>,
}

impl List {
    /// The newest that a sealed block knows of the key.
    pub(super) fn find_sealed(&self, words: Words) -> Option<Held> {
        if self.sealed.is_empty() {
            return None;
        }
        // SeqCst: pairs with the fence in `reserve`, and comes after the load of the list, whose
        // sealed blocks were sealed before it was published.
        fence(Ordering::SeqCst);
        // First one load of each block, none waiting for another: the misses overlap.
        let mut firsts = [0; SEALED_MAX];
        for (first, block) in firsts.iter_mut().zip(&self.sealed) {
            *first = block.first(words);
        }
        let maybe = self.sealed.iter().zip(firsts).filter(|(_, first)| *first != 0);
        maybe.map(|(block, _)| block).find_map(|block| block.find(words))
    }

    /// Whether a generation holds the key. No fence: they do not change, and the list that shows
    /// them was published after they were whole.
    pub(super) fn find_written(&self, words: Words) -> Found {
        let mut found = Found::No;
        for generation in self.written.iter() {
            match generation.find(words) {
                Found::No => {}
                yes @ Found::Yes { .. } => return yes,
                // Another generation may hold it.
                Found::Unknown => found = Found::Unknown,
            }
        }
        found
    }
}
