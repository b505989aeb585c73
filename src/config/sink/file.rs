//! `[sink.file]`: the folder, how safe a batch is, when a file is complete.

use std::sync::Arc;

use super::{Kind, Section};
use crate::drain::sinks::file;

pub(super) fn read(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    const CURE: &str = "write folder = \"/var/lib/forebay-events\"";
    let folder = section.required("folder", CURE);
    let folder = folder.map(|text| section.reading.path(text, &section.place("folder")));
    let sync = section.choice("sync");
    let (rotate_bytes, rotate_age) = (section.size("rotate_size"), section.duration("rotate_age"));
    Some(Arc::new(file::Settings {
        folder: folder?,
        sync: sync? == "batch",
        rotate_bytes: rotate_bytes?,
        rotate_age: rotate_age?,
    }))
}
