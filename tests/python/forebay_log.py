#!/usr/bin/env python3
"""Reads a lane of forebay from outside, in Python alone: mmap and struct do the reading.

Written from src/log/FORMAT.md and nothing else, to show that the document suffices; the sections
that a function follows are named in it. It never writes, takes no lock, and may be killed at any
time. As a program it prints one JSON object a record:

    python3 forebay_log.py DATA/lanes/NAME [--follow] [--from EPOCH-OFFSET]

and on standard error, at the end or after a quiet moment, what it had to step over.
"""

import mmap
import os
import struct

PAGE = 4096
ALIGN = 64
HEADER_COPY = 2048
KINDS = {1: "event", 2: "delivery", 3: "quarantine"}
PAD = 255
PURGED = 1
WRITTEN = 1
SEGMENT_MIN, SEGMENT_MAX = 65536, 2147483648

SEGMENT_HEADER = struct.Struct("<8sIII I16sQQQQQB47x")
FOOTER = struct.Struct("<8sIII IQQQQQQII48x")
RECORD_HEADER = struct.Struct("<IIQQ16sIIIBB2x8x")
assert (SEGMENT_HEADER.size, FOOTER.size, RECORD_HEADER.size) == (128, 128, 64)

TAGS = {
    1: "source", 2: "environment", 3: "tenant", 4: "event_id", 5: "event_type", 6: "event_time",
    7: "secret", 8: "method", 9: "target", 10: "peer", 11: "trace_id", 12: "event_position",
}
HEADER_NAME, HEADER_VALUE, HEADER_DIGEST = 32, 33, 34


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ 0x82F63B78 if byte & 1 else byte >> 1
        table.append(byte)
    return tuple(table)


_TABLE = _crc_table()


def crc32c(data, start=0):
    """CRC-32C of `data`; `start` is the checksum of what came before it."""
    crc, table = start ^ 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def _crc_without(data, at, start):
    """The checksum of a header with its own checksum, four bytes at `at`, taken as zero."""
    return crc32c(data[:at] + bytes(4) + data[at + 4:], start)


class VersionError(Exception):
    """A segment has a version of the format that is not known here."""


class Marks:
    """The page that tells how far to read. See "The marks"."""

    def __init__(self, directory):
        with open(os.path.join(directory, "marks"), "rb") as file:
            if os.fstat(file.fileno()).st_size < PAGE:
                raise ValueError("the marks are too short")
            self.map = mmap.mmap(file.fileno(), PAGE, prot=mmap.PROT_READ)
        # Whole aligned words are read at once through these views.
        self.words = memoryview(self.map).cast("Q")
        magic, version = struct.unpack_from("<8sI", self.map, 0)
        if magic != b"FOREBAYM" or version != 1:
            raise ValueError("the marks do not hold")

    def _word(self, offset):
        while True:
            first, second = self.words[offset // 8], self.words[offset // 8]
            if first == second:
                return struct.unpack("<Q", first.to_bytes(8, "little"))[0]

    def read(self):
        """(epoch, acked), loaded in the order that the format asks for."""
        acked = self._word(64)
        return self._word(32), acked


class Segment:
    """One mapped segment. See "A segment"."""

    def __init__(self, path, base):
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            self.file, size = (found.st_dev, found.st_ino), found.st_size
            (*_, self.epoch, _lane, self.sequence, self.base, self.bytes, salt, _created,
             self.ack) = self._header(file, size)
            bounded = SEGMENT_MIN <= self.bytes <= SEGMENT_MAX and self.bytes % PAGE == 0
            if self.base != base or not bounded:
                raise ValueError("the header is of another file")
            there = min(size, self.bytes)
            self.map = mmap.mmap(file.fileno(), there, prot=mmap.PROT_READ)
        self.seed = crc32c(struct.pack("<Q", salt))
        self.first, self.record_end, self.end = base + PAGE, base + self.bytes - PAGE, base + self.bytes
        self.cut = there < self.bytes
        self.readable_end = min(self.record_end, base + there)
        self.sealed_end = None

    @staticmethod
    def _header(file, size):
        """The fields of the header, or where it does not hold, of its copy. See "Segment header"."""
        for at in (0, size - PAGE + HEADER_COPY):
            file.seek(max(at, 0))
            header = file.read(128)
            if at < 0 or len(header) < 128:
                continue
            fields = SEGMENT_HEADER.unpack(header)
            magic, version, _own, crc, *_, segment_bytes, _salt, _created, _ack = fields
            if magic != b"FOREBAYS" or crc != _crc_without(header, 16, 0):
                continue
            if version != 1:
                raise VersionError(f"{file.name}: version {version}")
            if at == 0 or segment_bytes == size:
                return fields
        raise ValueError("neither the header nor the copy of it holds")

    def close(self):
        self.map.close()

    def look_for_footer(self):
        """See "Footer"; one that was cut off is never seen."""
        if self.cut:
            self.sealed_end = self.record_end
            return
        footer = self.map[self.bytes - PAGE:self.bytes - PAGE + 128]
        magic, version, _own, crc, _flags, base, sealed_end, *_ = FOOTER.unpack(footer)
        holds = magic == b"FOREBAYF" and version == 1 and base == self.base
        if holds and crc == _crc_without(footer, 16, self.seed):
            if self.first <= sealed_end <= self.record_end:
                self.sealed_end = sealed_end

    def commit(self, offset):
        """The commit word at an offset; the end of the record there, if that can be one."""
        if offset % ALIGN or offset + 64 > self.readable_end:
            return 0
        return struct.unpack_from("<I", self.map, offset - self.base)[0]

    def first_start(self, offset, start):
        """The first start of a record at `offset` or behind, walking over committed ones."""
        while start < offset and start + 64 <= self.record_end:
            whole = self.commit(start)
            if not whole or start + whole > self.record_end:
                break
            start += whole
        return start

    def framed(self, offset, limit):
        """The header of the record at `offset`, if it counts. See "Recovery", step 3."""
        limit = min(limit, self.readable_end)
        if offset < self.first or offset % ALIGN or offset + 64 > limit:
            return None
        at = offset - self.base
        if not self.commit(offset):
            return None
        header = self.map[at:at + 64]
        fields = RECORD_HEADER.unpack(header)
        commit, crc, position, _ns, _key, meta, body, *_ = fields
        whole = (64 + meta + body + ALIGN - 1) // ALIGN * ALIGN
        if commit != whole or position != offset or offset + whole > limit:
            return None
        return fields if crc == crc32c(header[8:], self.seed) else None

    def find(self, offset, limit):
        """(start, fields) of the record at `offset` or the next one behind it."""
        start = (offset + ALIGN - 1) // ALIGN * ALIGN
        while start < min(limit, self.readable_end):
            fields = self.framed(start, limit)
            if fields:
                return start, fields
            start += ALIGN
        return None


class Record:
    """One record, copied out of the mapping."""

    def __init__(self, segment, start, fields, payload):
        _commit, _crc, _position, self.received_ns, self.key, meta, _body, _pcrc, kind, _flags = fields
        self.epoch, self.offset, self.kind = segment.epoch, start, KINDS[kind]
        self.meta, self.body = payload[:meta], payload[meta:]

    def fields(self):
        """(tag, value) of the meta section. See "Meta section"."""
        at = 0
        while at + 4 <= len(self.meta):
            tag, length = struct.unpack_from("<HH", self.meta, at)
            at += 4 + length
            if at > len(self.meta):
                return
            yield tag, self.meta[at - length:at]

    def headers(self):
        """(name, value, whether the value is a digest) of the request's headers."""
        name = None
        for tag, value in self.fields():
            if tag == HEADER_NAME:
                name = value
            elif tag in (HEADER_VALUE, HEADER_DIGEST) and name is not None:
                yield name, value, tag == HEADER_DIGEST
                name = None


class Reader:
    """Reads a lane in order, as far as it is acknowledged. See "Reading"."""

    def __init__(self, directory, offset=0):
        self.directory, self.offset = directory, offset
        self.marks = self.segment = self.due = None
        self.whole_to = None  # all before it is in place
        self.skipped = {"damaged": 0, "gaps": 0, "segments": 0, "unknown": 0, "purged": 0}

    def next(self):
        """The next acknowledged record, or None if there is none yet."""
        while self._enter():
            segment = self.segment
            limit = self._limit()
            if limit is None:
                return None
            found = segment.find(self.offset, limit)
            missed = self.offset < limit and (not found or found[0] > self.offset)
            if missed and self._replaced():
                continue
            if not found:
                if limit not in (segment.sealed_end, segment.record_end):
                    return None
                self._leave(limit)
                continue
            start, fields = found
            self.skipped["gaps"] += start != self.offset
            self.offset = self.whole_to = start + fields[0]
            record = self._record(segment, start, fields)
            if record:
                return record
        return None

    def _record(self, segment, start, fields):
        _c, _h, _p, _ns, _key, meta, body, payload_crc, kind, flags = fields
        if kind == PAD:
            return None
        if flags & PURGED:
            self.skipped["purged"] += 1
            return None
        at = start - segment.base + 64
        payload = segment.map[at:at + meta + body]
        if payload_crc != crc32c(payload, segment.seed):
            if self._replaced():
                self.offset = self.whole_to = start
            else:
                self.skipped["damaged"] += 1
            return None
        if kind not in KINDS:
            self.skipped["unknown"] += 1
            return None
        return Record(segment, start, fields, payload)

    def _leave(self, limit):
        """Behind the last record of a segment: the next one begins where this ends, or later."""
        self.skipped["gaps"] += self.offset < limit
        self.offset = self.whole_to = self.segment.end
        self.due = self.segment.sequence + 1
        self.segment.close()
        self.segment = None

    def _replaced(self):
        """Leaves a file whose name has another by now. See "Publishing", step 6."""
        try:
            there = os.stat(self._path(self.segment.base))
        except FileNotFoundError:
            return False
        if (there.st_dev, there.st_ino) == self.segment.file:
            return False
        self.segment.close()
        self.segment = None
        return True

    def _limit(self):
        segment, marks = self.segment, self._read_marks()
        if segment.sealed_end is not None:
            return segment.sealed_end
        if marks and marks[0] == segment.epoch:
            # What lies before the segment is in place, or the reader would not be in it.
            acked = min(max(marks[1], segment.first), segment.record_end)
            if segment.ack == WRITTEN and acked <= self.offset:
                # What stands behind `acked` without a hole is acknowledged and not told yet.
                known = self.offset if self.offset == self.whole_to else acked
                return segment.first_start(self.offset + 1, known)
            return acked
        if marks and marks[0] < segment.epoch:
            return None
        segment.look_for_footer()
        if segment.sealed_end is None and marks:
            return segment.record_end
        return segment.sealed_end

    def _enter(self):
        if self.segment:
            return True
        marks = self._read_marks()
        bases = self._bases()
        behind = [index for index, base in enumerate(bases) if base <= self.offset]
        for base in bases[behind[-1] if behind else 0:]:
            try:
                segment = Segment(self._path(base), base)
            except (FileNotFoundError, ValueError):
                continue
            if segment.end <= self.offset:
                segment.close()
                continue
            if not self._may_enter(segment, marks) and not self._all_in_place(segment, marks, bases):
                segment.close()
                return False
            if self.due is not None:
                self.skipped["segments"] += max(0, segment.sequence - self.due)
            self.due = segment.sequence
            if self.whole_to == self.offset:
                self.whole_to = max(self.offset, segment.first)
            self.offset = max(self.offset, segment.first)
            self.segment = segment
            return True
        return False

    @staticmethod
    def _may_enter(segment, marks):
        if marks and marks[0] == segment.epoch:
            return marks[1] >= segment.first
        if marks and marks[0] < segment.epoch:
            return False
        segment.look_for_footer()
        return segment.sealed_end is not None or marks is not None

    def _all_in_place(self, segment, marks, bases):
        """Whether a record is acknowledged in a segment that the marks have not come to yet."""
        first = segment.first
        used = segment.ack == WRITTEN and segment.first_start(first + 1, first) > first
        if not used or not marks or marks[0] != segment.epoch:
            return False
        known = max(marks[1], self.offset) if self.offset == self.whole_to else marks[1]
        for base in (base for base in bases if base < segment.base):
            try:
                before = Segment(self._path(base), base)
            except (FileNotFoundError, ValueError):
                continue
            if base <= known < before.end:
                start = before.first_start(before.record_end, max(known, before.first))
                known = before.end if start == before.record_end else known
            before.close()
        return known >= segment.base

    def _path(self, base):
        return os.path.join(self.directory, f"{base:016x}.seg")

    def _bases(self):
        names = (name[:-4] for name in os.listdir(self.directory) if name.endswith(".seg"))
        hexadecimal = set("0123456789abcdef")
        return sorted(int(name, 16) for name in names if len(name) == 16 and set(name) <= hexadecimal)

    def _read_marks(self):
        if self.marks is None:
            try:
                self.marks = Marks(self.directory)
            except (FileNotFoundError, ValueError):
                return None
        return self.marks.read()


def row(record):
    """What the program prints of a record."""
    import base64

    told = {TAGS[tag]: value.decode("utf-8", "replace") for tag, value in record.fields() if tag in TAGS}
    return {
        "position": f"{record.epoch}-{record.offset}",
        "key": record.key.hex(),
        "kind": record.kind,
        "received_ns": record.received_ns,
        **told,
        "headers": [[name.decode("latin-1"), value.hex() if digest else value.decode("latin-1")]
                    for name, value, digest in record.headers()],
        "body_base64": base64.b64encode(record.body).decode("ascii"),
    }


def main(arguments):
    import json
    import sys
    import time

    follow, start = "--follow" in arguments, 0
    if "--from" in arguments:
        at = arguments.index("--from")
        start = int(arguments[at + 1].partition("-")[2])
        del arguments[at:at + 2]
    (directory,) = [argument for argument in arguments if argument != "--follow"]
    reader, told = Reader(directory, start), None
    while True:
        record = reader.next()
        if record:
            print(json.dumps(row(record)))
            continue
        sys.stdout.flush()
        if reader.skipped != told:
            told = dict(reader.skipped)
            print(json.dumps(told), file=sys.stderr, flush=True)
        if not follow:
            return
        time.sleep(0.001)


if __name__ == "__main__":
    import sys

    try:
        main(sys.argv[1:])
    except BrokenPipeError:
        pass
