"""The disk below SQLite: the preloaded library shim.c, and what a power cut leaves of the files."""

import errno
import mmap
import os
import pathlib
import struct
import subprocess

SECTOR = 512
HEADER = struct.Struct("<qqQII")
OPEN, WRITE, TRUNCATE, SYNC, UNLINK, SYNC_FOLDER = range(1, 7)

# The fields of `struct control` in shim.c, in this order.
FIELDS = ["clock_offset_ns", "failing", "fail_after", "fail_count", "fail_errno", "failed", "writes", "syncs"]
FAILS_WRITE, FAILS_SYNC, FAILS_TRUNCATE = 1, 2, 4
EVERYTHING = FAILS_WRITE | FAILS_SYNC | FAILS_TRUNCATE


def compile_shim(folder):
    """Compiles the library, and returns its path."""
    library = folder / "shim.so"
    source = pathlib.Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-pthread", "-o", library, source], check=True)
    return library


class Shim:
    """The library in one service: its variables of the environment, and its control file."""

    def __init__(self, library, folder, watched=None, records=False):
        folder.mkdir(exist_ok=True)
        self.record_path = folder / "record" if records else None
        control = folder / "control"
        control.write_bytes(bytes(8 * len(FIELDS)))
        self.environment = {"LD_PRELOAD": str(library), "KAIROS_SHIM_CONTROL": str(control)}
        if watched:
            self.environment["KAIROS_SHIM_FOLDER"] = str(watched)
        if records:
            self.record_path.write_bytes(b"")
            self.environment["KAIROS_SHIM_RECORD"] = str(self.record_path)
        with control.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 8 * len(FIELDS))

    def __getitem__(self, field):
        return struct.unpack_from("<q", self.memory, 8 * FIELDS.index(field))[0]

    def __setitem__(self, field, value):
        struct.pack_into("<q", self.memory, 8 * FIELDS.index(field), value)

    def fail(self, what, error, after=0, count=-1):
        """Lets operations fail: those after the next `after` ones, `count` of them or (-1) all until `heal`."""
        self["failing"] = 0
        self["fail_after"], self["fail_count"], self["fail_errno"] = after, count, getattr(errno, error)
        self["failing"] = what

    def heal(self):
        self["failing"] = 0

    def set_clock(self, seconds):
        """Sets the wall clock of the service this far ahead of the real one."""
        self["clock_offset_ns"] = int(seconds * 1_000_000_000)


class File:
    """One file: what is on the disk, and the operations since its last sync."""

    def __init__(self, content=b""):
        self.synced = bytearray(content)
        self.pending = []

    def sync(self):
        for operation in self.pending:
            apply(self.synced, operation)
        self.pending = []

    def after_cut(self, random):
        """Returns a content that the disk may have after a power cut: of the pending operations it has all, none
        or any, and a write may be there in part."""
        content = bytearray(self.synced)
        how = random.choice(["none", "all", "prefix", "any", "torn"])
        kept = random.randrange(len(self.pending) + 1)
        for number, (offset, data) in enumerate(self.pending):
            if how == "none" or (how == "prefix" and number >= kept) or (how in ("any", "torn") and random.random() < 0.5):
                continue
            if how == "torn" and data is not None and random.random() < 0.5:
                for start in range(0, len(data), SECTOR):
                    if random.random() < 0.5:
                        apply(content, (offset + start, data[start : start + SECTOR]))
            else:
                apply(content, (offset, data))
        return bytes(content)


def apply(content, operation):
    """Applies a write of (offset, data), or a truncation to the offset if data is None."""
    offset, data = operation
    length = offset if data is None else offset + len(data)
    if len(content) < length:
        content.extend(bytes(length - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset:length] = data


class Disk:
    """Follows a record of shim.c, and tells what the folder may hold after a power cut at that point.

    Strict: nothing is on the disk before its file was synced, and no new or deleted name before the folder was.
    """

    def __init__(self, folder, record):
        self.names = {
            path.name: File(path.read_bytes()) for path in folder.iterdir() if path.is_file() and not path.name.endswith("-shm")
        }
        self.pending_names = []
        self.files = {}
        self.record = record
        self.position = 0
        self.syncs = 0

    def advance(self, until):
        """Reads the record to the last operation before `until` (CLOCK_MONOTONIC, nanoseconds)."""
        with self.record.open("rb") as record:
            record.seek(self.position)
            while len(head := record.read(HEADER.size)) == HEADER.size:
                time, offset, length, what, file = HEADER.unpack(head)
                data = record.read(length)
                # A kill can leave a part of the last entry.
                if time > until or len(data) < length:
                    return
                self.position += HEADER.size + length
                self.follow(what, file, offset, data)

    def times(self):
        """Returns the times of all operations."""
        found = []
        with self.record.open("rb") as record:
            while len(head := record.read(HEADER.size)) == HEADER.size:
                time, _, length, _, _ = HEADER.unpack(head)
                record.seek(length, 1)
                found.append(time)
        return found

    def follow(self, what, file, offset, data):
        if what == OPEN:
            name = data.decode()
            current = dict(self.names)
            for changed, content in self.pending_names:
                current[changed] = content
            if current.get(name) is None:
                self.pending_names.append((name, File()))
                current[name] = self.pending_names[-1][1]
            self.files[file] = current[name]
            self.files[file].name = name
        elif what == WRITE:
            self.files[file].pending.append((offset, data))
        elif what == TRUNCATE:
            self.files[file].pending.append((offset, None))
        elif what == SYNC:
            self.syncs += 1
            self.files[file].sync()
        elif what == UNLINK:
            self.pending_names.append((self.files[file].name, None))
        elif what == SYNC_FOLDER:
            self.names.update(self.pending_names)
            self.pending_names = []

    def cut(self, random, folder):
        """Writes into the folder what a power cut at this point may leave. Returns the number of lost operations."""
        names = dict(self.names)
        names.update(self.pending_names[: random.randrange(len(self.pending_names) + 1)])
        pending = 0
        for name, file in names.items():
            if file is not None:
                pending += len(file.pending)
                (folder / name).write_bytes(file.after_cut(random))
                os.chmod(folder / name, 0o600)
        return pending
