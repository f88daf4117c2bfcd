comptime {
    _ = @import("trees.zig");
    _ = @import("rows.zig");
}
