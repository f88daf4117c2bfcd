//! Goes through JSON, and gives up at whatever is not of the expected form.

const std = @import("std");

pub const GivenUp = error{GivenUp};

/// Bytes; every double can be written in 25.
const longest_number = 40;

pub const Scanner = struct {
    text: []const u8,
    at: usize = 0,

    /// A number by JSON's grammar (RFC 8259, section 6).
    pub fn numberText(self: *Scanner) GivenUp![]const u8 {
        const rest = self.text[self.at..];
        var end: usize = @intFromBool(rest[0] == '-');
        end = if (byteAt(rest, end) == '0') end + 1 else try digits(rest, end);
        if (byteAt(rest, end) == '.') end = try digits(rest, end + 1);
        if (byteAt(rest, end) | 0x20 == 'e') {
            const sign = byteAt(rest, end + 1);
            end = try digits(rest, end + 1 + @as(usize, @intFromBool(sign == '+' or sign == '-')));
        }
        if (end > longest_number) return error.GivenUp; // it is logged as it is written
        self.at += end;
        return rest[0..end];
    }

    /// A string of known texts, which have no quotation marks, escapes or control characters: it ends with the next mark. Of any
    /// other one it may be a part, which then ends with a backslash.
    pub fn string(self: *Scanner) GivenUp![]const u8 {
        try self.take('"');
        const rest = self.text[self.at..];
        const end = std.mem.indexOfScalar(u8, rest, '"') orelse return error.GivenUp;
        self.at += end + 1;
        return rest[0..end];
    }

    pub fn word(self: *Scanner, wanted: []const u8) GivenUp!void {
        if (!std.mem.startsWith(u8, self.text[self.at..], wanted)) return error.GivenUp;
        self.at += wanted.len;
    }

    /// Whether a comma comes, and not the end of what is being read.
    pub fn another(self: *Scanner, end: u8) GivenUp!bool {
        const found = try self.next();
        self.at += 1;
        if (found == ',') return true;
        return if (found == end) false else error.GivenUp;
    }

    pub fn take(self: *Scanner, wanted: u8) GivenUp!void {
        if (try self.next() != wanted) return error.GivenUp;
        self.at += 1;
    }

    pub fn next(self: *Scanner) GivenUp!u8 {
        self.skipSpace();
        return if (self.at < self.text.len) self.text[self.at] else error.GivenUp;
    }

    fn skipSpace(self: *Scanner) void {
        while (self.at < self.text.len) : (self.at += 1) switch (self.text[self.at]) {
            ' ', '\t', '\n', '\r' => {},
            else => return,
        };
    }

    /// Whether nothing follows but white space.
    pub fn atEnd(self: *Scanner) bool {
        self.skipSpace();
        return self.at == self.text.len;
    }
};

/// The place after the digits that begin at `start`, one at least.
fn digits(text: []const u8, start: usize) GivenUp!usize {
    var end = start;
    while (end < text.len and std.ascii.isDigit(text[end])) end += 1;
    return if (end > start) end else error.GivenUp;
}

/// 0, which no number holds, after the end.
fn byteAt(text: []const u8, at: usize) u8 {
    return if (at < text.len) text[at] else 0;
}
