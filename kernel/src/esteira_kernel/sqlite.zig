//! Runs a statement of SQLite over rows of values, both as JSON. Python's `sqlite3` makes an object of each value, and lets
//! another thread run at each step.
//!
//! SQLite itself is Python's: sqlite.py gives the addresses of its functions, and a statement that was prepared with them.

const std = @import("std");
const scanner = @import("scanner.zig");
const GivenUp = scanner.GivenUp;
const Writer = @import("writer.zig").Writer;

const Statement = opaque {};

/// Of SQLite, by their names in its documentation.
pub const Functions = extern struct {
    bind_null: *const fn (*Statement, c_int) callconv(.c) c_int,
    bind_int64: *const fn (*Statement, c_int, i64) callconv(.c) c_int,
    bind_double: *const fn (*Statement, c_int, f64) callconv(.c) c_int,
    bind_text: *const fn (*Statement, c_int, [*]const u8, c_int, ?*const anyopaque) callconv(.c) c_int,
    clear_bindings: *const fn (*Statement) callconv(.c) c_int,
    step: *const fn (*Statement) callconv(.c) c_int,
    reset: *const fn (*Statement) callconv(.c) c_int,
    column_type: *const fn (*Statement, c_int) callconv(.c) c_int,
    column_int64: *const fn (*Statement, c_int) callconv(.c) i64,
    column_double: *const fn (*Statement, c_int) callconv(.c) f64,
    column_text: *const fn (*Statement, c_int) callconv(.c) ?[*]const u8,
    column_bytes: *const fn (*Statement, c_int) callconv(.c) c_int,
};

/// A statement that gives one row for each row of parameters. `Query` of sqlite.py fills it.
pub const Query = extern struct {
    functions: *const Functions,
    statement: *Statement,
    parameters: usize,
    /// The positions of the columns that are wanted, in their order.
    columns: [*]const c_int,
    columns_count: usize,
};

const code_ok = 0;
const code_row = 100;
const code_done = 101;
const type_integer = 1;
const type_double = 2;
const type_text = 3;
const type_null = 5;

/// Bytes of a number at most.
const longest_number = 64;

/// Reads rows of parameters, `[[value, …], …]`, and writes what the statement gives for each, in the same form. Gives how many
/// bytes were written: 0 where a string has an escape, where SQLite fails, where there is another number of rows than one, and where
/// the results do not fit.
pub export fn run_query(query: *const Query, text: [*]const u8, length: usize, output: [*]u8, capacity: usize) callconv(.c) usize {
    var run = Run{
        .query = query,
        .call = query.functions,
        .statement = query.statement,
        .json = .{ .text = text[0..length] },
        .writer = .{ .text = output[0..capacity] },
    };
    defer {
        _ = run.call.reset(run.statement);
        _ = run.call.clear_bindings(run.statement); // texts are the caller's
    }
    run.rows() catch return 0;
    return run.writer.at;
}

const Run = struct {
    query: *const Query,
    call: *const Functions,
    statement: *Statement,
    json: scanner.Scanner,
    writer: Writer,

    fn rows(self: *Run) GivenUp!void {
        try self.json.take('[');
        var begin: u8 = '[';
        while (true) : (begin = ',') {
            try self.write(&.{begin});
            try self.bindRow();
            if (self.call.step(self.statement) != code_row) return error.GivenUp;
            try self.writeRow();
            if (self.call.step(self.statement) != code_done) return error.GivenUp;
            if (self.call.reset(self.statement) != code_ok) return error.GivenUp;
            if (!try self.json.another(']')) break;
        }
        if (!self.json.atEnd()) return error.GivenUp;
        try self.write("]");
    }

    fn bindRow(self: *Run) GivenUp!void {
        try self.json.take('[');
        for (0..self.query.parameters) |position| {
            if (position > 0) try self.json.take(',');
            if (try self.bind(@intCast(position + 1)) != code_ok) return error.GivenUp;
        }
        try self.json.take(']');
    }

    fn bind(self: *Run, parameter: c_int) GivenUp!c_int {
        switch (self.json.next()) {
            'n' => try self.json.word("null"),
            't' => {
                try self.json.word("true");
                return self.call.bind_int64(self.statement, parameter, 1);
            },
            'f' => {
                try self.json.word("false");
                return self.call.bind_int64(self.statement, parameter, 0);
            },
            '"' => {
                const text = try self.json.string();
                if (std.mem.indexOfScalar(u8, text, '\\') != null) return error.GivenUp;
                return self.call.bind_text(self.statement, parameter, text.ptr, std.math.cast(c_int, text.len) orelse return error.GivenUp, null);
            },
            else => {
                const found = try self.json.number();
                if (found.is_integer)
                    return self.call.bind_int64(self.statement, parameter, std.fmt.parseInt(i64, found.text, 10) catch return error.GivenUp);
                return self.call.bind_double(self.statement, parameter, found.value);
            },
        }
        return self.call.bind_null(self.statement, parameter);
    }

    fn writeRow(self: *Run) GivenUp!void {
        try self.write("[");
        for (self.query.columns[0..self.query.columns_count], 0..) |column, position| {
            if (position > 0) try self.write(",");
            try self.writeValue(column);
        }
        try self.write("]");
    }

    fn writeValue(self: *Run, column: c_int) GivenUp!void {
        switch (self.call.column_type(self.statement, column)) {
            type_integer => {
                var buffer: [longest_number]u8 = undefined;
                const value = self.call.column_int64(self.statement, column);
                try self.write(std.fmt.bufPrint(&buffer, "{d}", .{value}) catch unreachable);
            },
            type_double => {
                const value = self.call.column_double(self.statement, column);
                if (!std.math.isFinite(value)) return self.write("null");
                if (!self.writer.hasRoom(longest_number)) return error.GivenUp;
                self.writer.number(value);
            },
            type_text => {
                const start = self.call.column_text(self.statement, column) orelse return error.GivenUp;
                const text = start[0..@intCast(self.call.column_bytes(self.statement, column))];
                for (text) |byte| if (byte < ' ' or byte == '"' or byte == '\\') return error.GivenUp;
                if (!std.unicode.utf8ValidateSlice(text)) return error.GivenUp;
                try self.write("\"");
                try self.write(text);
                try self.write("\"");
            },
            type_null => try self.write("null"),
            else => return error.GivenUp,
        }
    }

    fn write(self: *Run, text: []const u8) GivenUp!void {
        if (!self.writer.hasRoom(text.len)) return error.GivenUp;
        self.writer.write(text);
    }
};
