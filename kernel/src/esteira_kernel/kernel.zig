//! The root of the library: what it exports to Python.
//!
//! Compiled with safety checks. A function that leaves them out says so, and why nothing can go wrong there.

comptime {
    _ = @import("answers.zig");
    _ = @import("rows.zig");
    _ = @import("sqlite.zig");
    _ = @import("trees.zig");
}
