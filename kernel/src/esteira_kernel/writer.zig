//! Writes JSON into room that is given.
//!
//! Numbers have the fewest digits that read as the same double, and look as msgspec writes them.

const std = @import("std");

pub const Writer = struct {
    text: []u8,
    at: usize = 0,

    pub fn hasRoom(self: *const Writer, bytes: usize) bool {
        return self.text.len - self.at >= bytes;
    }

    pub fn write(self: *Writer, text: []const u8) void {
        @memcpy(self.text[self.at..][0..text.len], text);
        self.at += text.len;
    }

    pub fn number(self: *Writer, value: f64) void {
        var buffer: [std.fmt.float.bufferSize(.decimal, f64)]u8 = undefined;
        const size = @abs(value);
        const plain = size == 0 or (size >= 1e-5 and size < 1e16);
        const text = std.fmt.float.render(&buffer, value, .{ .mode = if (plain) .decimal else .scientific }) catch unreachable;
        self.write(text);
        if (plain and std.mem.indexOfScalar(u8, text, '.') == null) self.write(".0");
    }
};
