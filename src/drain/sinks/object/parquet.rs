//! Events as rows of a Parquet file; and the last position of what is there.
//!
//! The file's own metadata holds the last position under [`LAST`], so that reading it back takes
//! the footer alone.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder, TimestampNanosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use bytes::Bytes;
use forebay_log::{Position, Tag};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;

use crate::drain::sink::Event;

/// The name of the last position in a file's metadata.
const LAST: &str = "forebay.last";

/// The object of these events; a level of 0 does not compress.
pub(super) fn encode(events: &[Event], level: i32) -> Result<Vec<u8>, ParquetError> {
    let rows = rows(events)?;
    let compression = match level {
        0 => Compression::UNCOMPRESSED,
        level => Compression::ZSTD(ZstdLevel::try_new(level)?),
    };
    let last = events.last().map(|event| event.position().to_string());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_key_value_metadata(Some(vec![KeyValue::new(LAST.to_owned(), last)]))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(&rows)?;
    writer.into_inner()
}

/// The position of the last row; none: it is no file of this sink's.
pub(super) fn last(object: &Bytes) -> Result<Option<Position>, ParquetError> {
    let read = ParquetMetaDataReader::new().parse_and_finish(object)?;
    let said = read.file_metadata().key_value_metadata().into_iter().flatten();
    let last = said.filter(|said| said.key == LAST).find_map(|said| said.value.as_deref());
    Ok(last.and_then(|text| text.parse().ok()))
}

/// One row for each event, in their order.
fn rows(events: &[Event]) -> Result<RecordBatch, ArrowError> {
    let texts = |of: &dyn Fn(&Event) -> String| -> ArrayRef {
        let mut column = StringBuilder::new();
        for event in events {
            column.append_value(of(event));
        }
        Arc::new(column.finish())
    };
    let fields = |tag: Tag| -> ArrayRef {
        let mut column = StringBuilder::new();
        for event in events {
            column.append_option(event.field(tag));
        }
        Arc::new(column.finish())
    };
    let mut time = TimestampNanosecondBuilder::new().with_timezone("UTC");
    let mut payload = BinaryBuilder::new();
    for event in events {
        time.append_value(i64::try_from(event.received_ns()).unwrap_or(i64::MAX));
        payload.append_value(event.payload());
    }
    let columns: [(&str, ArrayRef, bool); 11] = [
        ("position", texts(&|event| event.position().to_string()), false),
        ("time", Arc::new(time.finish()), false),
        ("lane", texts(&|event| event.lane.to_string()), false),
        ("source", fields(Tag::Source), true),
        ("type", fields(Tag::EventType), true),
        ("id", fields(Tag::EventId), true),
        ("key", texts(&Event::idempotency_key), false),
        ("tenant", fields(Tag::Tenant), true),
        ("environment", fields(Tag::Environment), true),
        ("content_type", texts(&|event| event.content_type.to_string()), false),
        ("payload", Arc::new(payload.finish()), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns)
}
