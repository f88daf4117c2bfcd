//! Goes through JSON, and gives up at whatever is not of the expected form.

const std = @import("std");
const numbers = @import("numbers.zig");

pub const GivenUp = error{GivenUp};

/// Bytes; every double can be written in 25.
const longest_number = 40;
/// More than any power of ten that is looked at.
const beyond_powers = 1000;

pub const Scanner = struct {
    text: []const u8,
    at: usize = 0,

    /// A number by JSON's grammar (RFC 8259, section 6).
    pub fn number(self: *Scanner) GivenUp!Number {
        const rest = self.text[self.at..];
        var decimal = Decimal{};
        const start: usize = @intFromBool(byteAt(rest, 0) == '-');
        var end = if (byteAt(rest, start) == '0') start + 1 else try decimal.take(rest, start);
        const integer_end = end;
        if (byteAt(rest, end) == '.') {
            end = try decimal.take(rest, end + 1);
            decimal.exponent = -@as(i32, @intCast(@min(end - integer_end - 1, longest_number)));
        }
        if (byteAt(rest, end) | 0x20 == 'e') {
            const sign = byteAt(rest, end + 1);
            var power = Decimal{};
            end = try power.take(rest, end + 1 + @as(usize, @intFromBool(sign == '+' or sign == '-')));
            if (power.count > numbers.most_digits) return error.GivenUp; // they do not fit
            const size: i32 = @intCast(@min(power.digits, beyond_powers));
            decimal.exponent += if (sign == '-') -size else size;
        }
        if (end > longest_number) return error.GivenUp; // it is logged as it is written
        self.at += end;
        const text = rest[0..end];
        return .{ .text = text, .is_integer = end == integer_end, .value = try decimal.value(text) };
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
        const found = self.next();
        self.at += 1;
        if (found == ',') return true;
        return if (found == end) false else error.GivenUp;
    }

    pub fn take(self: *Scanner, wanted: u8) GivenUp!void {
        if (self.next() != wanted) return error.GivenUp;
        self.at += 1;
    }

    /// The byte that comes after white space, 0 at the end.
    pub fn next(self: *Scanner) u8 {
        self.skipSpace();
        return byteAt(self.text, self.at);
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

pub const Number = struct {
    text: []const u8,
    /// Whether it has neither fraction nor exponent.
    is_integer: bool,
    /// Infinite where it is beyond all doubles.
    value: f64,
};

/// What a number is made of, while it is read.
const Decimal = struct {
    digits: u64 = 0,
    /// Of them, from the first that is not 0 on.
    count: usize = 0,
    exponent: i32 = 0,

    /// The place after the digits that begin at `start`, one at least.
    fn take(self: *Decimal, text: []const u8, start: usize) GivenUp!usize {
        var begin = start;
        if (self.digits == 0) while (byteAt(text, begin) == '0') {
            begin += 1;
        };
        var end = begin;
        var read = self.digits;
        while (end < text.len) : (end += 1) {
            const digit = text[end] -% '0';
            if (digit > 9) break;
            read = read *% 10 +% digit; // of no use where there are too many
        }
        self.digits = read;
        self.count += end - begin;
        return if (end > start) end else error.GivenUp;
    }

    fn value(self: *const Decimal, text: []const u8) GivenUp!f64 {
        if (self.count <= numbers.most_digits) {
            if (numbers.nearest(self.digits, self.exponent)) |found| return if (text[0] == '-') -found else found;
        }
        return std.fmt.parseFloat(f64, text) catch error.GivenUp;
    }
};

/// 0, which JSON does not hold, after the end.
fn byteAt(text: []const u8, at: usize) u8 {
    return if (at < text.len) text[at] else 0;
}
