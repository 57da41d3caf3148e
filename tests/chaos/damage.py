"""Damage to what a member holds, and how it is known that it was noticed and mended."""
import os, re, struct

SEGMENT_HEADER, RECORD_HEAD = 64, 56


class Damage:
    """Of the folder of a member that was down."""

    # Until it is noticed: members that are cut off or new are not there to tell it (docs/healing.md, not survived).
    bears = {"clients", "wall", "drift", "slowdisk", "slownet", "lossy"}

    def __init__(self, cluster, m, what):
        self.c, self.m, self.what = cluster, m, what
        self.since = m.log_end()
        self.starts = m.starts

    def noticed(self):
        return "set aside in damaged/" in self.m.said(self.since)

    def over(self):
        return self.m.up and self.m.starts > self.starts and self.serves()

    def serves(self):
        return self.c.ctl("endpoint", "health", endpoints=[self.m]).returncode == 0


class ColdRot(Damage):
    """It counts as mended when the bit is no longer there: written again, set aside, or in a file that was given back before anybody read it."""

    def __init__(self, cluster, m, path, at, bit):
        super().__init__(cluster, m, "rot while it ran")
        self.path, self.at = path, at
        self.file = os.stat(path).st_ino
        self.bad = flip_bit(path, at, bit)

    def over(self):
        return self.gone() and self.m.up and self.serves()

    def gone(self):
        try:
            if os.stat(self.path).st_ino != self.file:
                return True
            with open(self.path, "rb") as f:
                f.seek(self.at)
                return f.read(1) != self.bad
        except OSError:
            return True


class MemoryRot(Damage):
    """Until the member says its right value again; by then the others must have named it. A member that falls behind might be sent the damage."""

    bears = {"clients", "wall", "drift"}

    def __init__(self, cluster, m, right):
        super().__init__(cluster, m, "rot of its memory")
        self.right = right

    def over(self):
        return self.noticed() and self.m.up and self.serves() and self.right()


def flip_bit(path, at, bit):
    """The byte that is there now."""
    with open(path, "r+b", buffering=0) as f:
        f.seek(at)
        bad = bytes([f.read(1)[0] ^ 1 << bit])
        f.seek(at)
        f.write(bad)
    return bad


def records(path):
    """[(first byte, end)] of the records of a segment of the log: docs/formats-raft.md."""
    with open(path, "rb") as f:
        data = f.read()
    salt, at = data[32:40], SEGMENT_HEADER
    while len(salt) == 8 and data[at:at + 8] == salt and at + RECORD_HEAD <= len(data):
        end = at + RECORD_HEAD + struct.unpack_from("<I", data, at + 48)[0]
        yield at, min(end, len(data))
        at = (end + 7) // 8 * 8


def meaningful(data):
    """[(path, first byte, end)]: where each byte counts, in files that are not written all the time."""
    out = [(os.path.join(data, n), 0, os.path.getsize(os.path.join(data, n))) for n in ("meta", "meta2", "members")]
    for name in sorted(os.listdir(os.path.join(data, "snap"))):
        if re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{16}\.snap", name):
            path = os.path.join(data, "snap", name)
            out.append((path, 0, os.path.getsize(path)))
    for name in sorted(os.listdir(os.path.join(data, "wal"))):
        if name.endswith(".wal"):
            path = os.path.join(data, "wal", name)
            found = list(records(path))
            out += [(path, *found[len(found) * part // 4]) for part in range(4) if found]
    return out


def writable(pid):
    """Pieces of its memory, overlapping."""
    for line in open(f"/proc/{pid}/maps"):
        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
        first, last = (int(m[1], 16), int(m[2], 16)) if m else (0, 0)
        yield from ((at, min(last - at, (1 << 20) + 200)) for at in range(first, last, 1 << 20))


def flip_memory(pid, text, offset):
    """Wherever `text` stands in its memory, a bit of the byte at `offset` of it. How often."""
    n = 0
    with open(f"/proc/{pid}/mem", "r+b", 0) as mem:
        for first, size in writable(pid):
            try:
                mem.seek(first)
                at = mem.read(size).find(text.encode())
                if at >= 0:
                    mem.seek(first + at + offset)
                    mem.write(bytes([text.encode()[offset] ^ 0x20]))
                    n += 1
            except (OSError, OverflowError, ValueError):
                pass
    return n
