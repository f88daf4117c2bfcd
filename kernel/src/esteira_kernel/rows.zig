//! Reads the body of an ordinary request, `{"features": [{"name": value, …}, …]}`, straight into a matrix; and values that
//! have their order already, `[[value, …], …]`.
//!
//! It takes only what the rules of Esteira take beyond doubt: each feature once at most, finite numbers, strings that are
//! known categories, null. For anything else, an unknown name, an escape, a new category, it gives up: the rules then
//! read the body from its beginning and say what is wrong. rows.py says what the arrays hold.
//!
//! Compiled with runtime safety: an index outside of a slice ends the process, and reads nothing.

const std = @import("std");
const scanner = @import("scanner.zig");
const GivenUp = scanner.GivenUp;

pub const Plan = extern struct {
    features: usize,
    is_number: [*]const u8,
    entry_start: [*]const u32,
    table_start: [*]const u32,
    place_start: [*]const u32,
    places: [*]u32,
    texts: [*]const u8,
    text_bytes: usize,

    /// The names of the features are the first table, the categories of each feature the ones after it.
    fn entries(plan: *const Plan, table: usize) [2]u32 {
        return .{ plan.table_start[table], plan.table_start[table + 1] };
    }

    fn text(plan: *const Plan, entry: usize) []const u8 {
        return plan.texts[0..plan.text_bytes][plan.entry_start[entry]..plan.entry_start[entry + 1]];
    }

    fn placesOf(plan: *const Plan, table: usize) []u32 {
        return plan.places[plan.place_start[table]..plan.place_start[table + 1]];
    }

    /// The position of `wanted` in the table.
    fn find(plan: *const Plan, table: usize, wanted: []const u8) ?usize {
        const places = plan.placesOf(table);
        const first, _ = plan.entries(table);
        var place = hash(wanted) & (places.len - 1);
        while (places[place] != 0) : (place = (place + 1) & (places.len - 1)) {
            const position = places[place] - 1;
            if (std.mem.eql(u8, plan.text(first + position), wanted)) return position;
        }
        return null;
    }
};

/// Where a value stands in the body; of no length where the row lacks it.
pub const Span = extern struct { start: u32, length: u32 };

/// Fills `places`, open hash tables of positions from 1 on.
pub export fn prepare_rows(plan: *const Plan) callconv(.c) void {
    for (0..plan.features + 1) |table| {
        const places = plan.placesOf(table);
        @memset(places, 0);
        const first, const end = plan.entries(table);
        for (first..end) |entry| {
            var place = hash(plan.text(entry)) & (places.len - 1);
            while (places[place] != 0) place = (place + 1) & (places.len - 1);
            places[place] = @intCast(entry - first + 1);
        }
    }
}

fn hash(text: []const u8) usize {
    return @truncate(std.hash.Wyhash.hash(0, text));
}

/// Reads a body, or values where they are `ordered`; gives the number of rows, or 0 where it gives up. Values nobody sent: a
/// category that is not known is missing there.
///
/// matrix: (most, features), filled row after row. values: what stands in the body for each row, as a JSON array in the order of
/// the features; `ends` says where each of them ends. spans: `features` places to work on.
pub export fn read_rows(
    plan: *const Plan,
    body: [*]const u8,
    length: usize,
    ordered: bool,
    matrix: [*]f64,
    most: usize,
    values: [*]u8,
    capacity: usize,
    ends: [*]u32,
    spans: [*]Span,
) callconv(.c) usize {
    var reader = Reader{
        .plan = plan,
        .json = .{ .text = body[0..length] },
        .values = values[0..capacity],
        .spans = spans[0..plan.features],
        .takes_unknown = ordered,
    };
    const rows = matrix[0 .. most * plan.features];
    return (if (ordered) reader.readArrays(rows, ends[0..most]) else reader.readBody(rows, ends[0..most])) catch 0;
}

const Reader = struct {
    plan: *const Plan,
    json: scanner.Scanner,
    values: []u8,
    spans: []Span,
    takes_unknown: bool,
    written: usize = 0,

    fn readBody(self: *Reader, matrix: []f64, ends: []u32) GivenUp!usize {
        try self.json.take('{');
        if (!std.mem.eql(u8, try self.json.string(), "features")) return error.GivenUp;
        try self.json.take(':');
        const rows = try self.readRows(readRow, matrix, ends);
        try self.json.take('}');
        return self.finish(rows);
    }

    fn readArrays(self: *Reader, matrix: []f64, ends: []u32) GivenUp!usize {
        return self.finish(try self.readRows(readArray, matrix, ends));
    }

    /// The elements of an array, each by `readOne`.
    fn readRows(self: *Reader, comptime readOne: fn (*Reader, []f64) GivenUp!void, matrix: []f64, ends: []u32) GivenUp!usize {
        try self.json.take('[');
        var rows: usize = 0;
        while (true) {
            if (rows == ends.len) return error.GivenUp;
            try readOne(self, matrix[rows * self.spans.len ..][0..self.spans.len]);
            ends[rows] = @intCast(self.written);
            rows += 1;
            if (!try self.json.another(']')) return rows;
        }
    }

    fn readArray(self: *Reader, row: []f64) GivenUp!void {
        const start = self.json.at;
        try self.json.take('[');
        for (row, 0..) |*value, feature| {
            if (feature > 0) try self.json.take(',');
            value.* = try self.readValue(feature);
        }
        try self.json.take(']');
        try self.write(self.json.text[start..self.json.at]);
    }

    fn finish(self: *Reader, rows: usize) GivenUp!usize {
        return if (self.json.atEnd()) rows else error.GivenUp;
    }

    fn readRow(self: *Reader, row: []f64) GivenUp!void {
        @memset(row, std.math.nan(f64));
        @memset(self.spans, .{ .start = 0, .length = 0 });
        try self.json.take('{');
        if (self.json.next() == '}') {
            self.json.at += 1;
            return self.writeRow();
        }
        var expected: usize = 0;
        while (true) {
            const feature = try self.readName(expected);
            if (self.spans[feature].length != 0) return error.GivenUp;
            try self.json.take(':');
            row[feature] = try self.readValue(feature);
            expected = feature + 1;
            if (!try self.json.another('}')) return self.writeRow();
        }
    }

    /// Most clients send the features in their order.
    fn readName(self: *Reader, expected: usize) GivenUp!usize {
        if (self.json.next() == '"' and expected < self.spans.len) {
            const name = self.plan.text(expected);
            const rest = self.json.text[self.json.at + 1 ..];
            if (rest.len > name.len and rest[name.len] == '"' and std.mem.eql(u8, rest[0..name.len], name)) {
                self.json.at += name.len + 2;
                return expected;
            }
        }
        return self.plan.find(0, try self.json.string()) orelse error.GivenUp;
    }

    fn readValue(self: *Reader, feature: usize) GivenUp!f64 {
        const first = self.json.next();
        const start = self.json.at;
        const value = switch (first) {
            'n' => try self.missing(),
            '"' => try self.category(feature),
            else => try self.number(feature),
        };
        self.spans[feature] = .{ .start = @intCast(start), .length = @intCast(self.json.at - start) };
        return value;
    }

    fn missing(self: *Reader) GivenUp!f64 {
        try self.json.word("null");
        return std.math.nan(f64);
    }

    fn category(self: *Reader, feature: usize) GivenUp!f64 {
        if (self.plan.is_number[feature] != 0) return error.GivenUp;
        const text = try self.json.string();
        const code = self.plan.find(1 + feature, text) orelse return self.unknown(text);
        return @floatFromInt(code);
    }

    fn unknown(self: *Reader, text: []const u8) GivenUp!f64 {
        if (!self.takes_unknown or std.mem.indexOfScalar(u8, text, '\\') != null) return error.GivenUp;
        return std.math.nan(f64);
    }

    fn number(self: *Reader, feature: usize) GivenUp!f64 {
        if (self.plan.is_number[feature] == 0) return error.GivenUp;
        const found = try self.json.number();
        if (std.mem.eql(u8, found.text, "-0")) return error.GivenUp; // an integer, which has no sign of zero
        return if (std.math.isFinite(found.value)) found.value else error.GivenUp;
    }

    fn writeRow(self: *Reader) GivenUp!void {
        try self.write("[");
        for (self.spans, 0..) |span, feature| {
            if (feature > 0) try self.write(",");
            try self.write(if (span.length == 0) "null" else self.json.text[span.start..][0..span.length]);
        }
        try self.write("]");
    }

    fn write(self: *Reader, text: []const u8) GivenUp!void {
        if (self.values.len - self.written < text.len) return error.GivenUp;
        @memcpy(self.values[self.written..][0..text.len], text);
        self.written += text.len;
    }
};
