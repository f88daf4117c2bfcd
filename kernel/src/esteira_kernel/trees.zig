//! Scores rows by a sum of regression trees, with the bits of adding their leaves up one after another.
//!
//! QuickScorer (Lucchese et al., "QuickScorer: a Fast Algorithm to Rank Documents with Additive Ensembles of Regression
//! Trees", SIGIR 2015): a tree is a set of bits, its leaves from left to right. Every split that a row answers with
//! "false" takes the leaves of its true side away, and the first leaf that is left is the row's. So nothing walks from
//! node to node: of a feature's thresholds in order, those below its value answer "false", and how many they are is all
//! that has to be found. What the first `stride` of them take away together is kept as a row of words, the first
//! 2 `stride` of them too, and so on, so that few are taken one by one.
//!
//! Floating point is strict, as it is in Zig unless a function asks for another mode: nothing is fused or reordered.
//!
//! No function here checks an index: arrays.py has checked them all when the trees were loaded, and a matrix has as many
//! columns as there are features.

const Word = u32;
const lanes = 8;
const Lanes = @Vector(lanes, Word);
const all: Word = ~@as(Word, 0);
/// Features whose removals are gathered before the words are gone through.
const block = 64;
/// Rows whose sums are made side by side: each addition waits for the one before it, and for no other row's.
const abreast = 4;

/// `TreeSums` of trees.py fills it; arrays.py and tables.py say what the arrays hold.
pub const Trees = extern struct {
    features: usize,
    /// A multiple of `lanes`.
    words: usize,
    trees: usize,
    outputs: usize,
    stride: usize,
    threshold_start: [*]const u32,
    coded_start: [*]const u32,
    passed_start: [*]const usize,
    search_start: [*]const usize,
    search_depth: [*]const u8,
    search: [*]const f64,
    word: [*]const u32,
    mask: [*]const Word,
    coded: [*]const Word,
    passed: [*]Word,
    tree_start: [*]const u32,
    word_leaf: [*]const u32,
    leaf: [*]const f64,
};

/// What a feature's value takes away: the leaves that `row` lacks, then those of single thresholds.
const Removal = struct { row: [*]const Word, start: usize, end: usize };

/// Fills `passed`.
pub export fn prepare_trees(trees: *const Trees) callconv(.c) void {
    @setRuntimeSafety(false);
    for (0..trees.features) |feature| {
        const start, const end = .{ trees.threshold_start[feature], trees.threshold_start[feature + 1] };
        var row = trees.passed + trees.passed_start[feature] * trees.words;
        var at: usize = start;
        while (at + trees.stride <= end) : (at += trees.stride) {
            if (at == start) @memset(row[0..trees.words], all) else {
                @memcpy(row[trees.words..][0..trees.words], row[0..trees.words]);
                row += trees.words;
            }
            remove(trees, row, at, at + trees.stride);
        }
    }
}

/// Adds the leaves of `rows` rows up.
///
/// matrix: (rows, features), row after row. sums: (rows, outputs). alive: `abreast` times `words` words to work on.
pub export fn score_trees(
    trees: *const Trees,
    matrix: [*]const f64,
    rows: usize,
    sums: [*]f64,
    alive: [*]Word,
) callconv(.c) void {
    @setRuntimeSafety(false);
    var row: usize = 0;
    while (row + abreast <= rows) : (row += abreast) scoreRows(abreast, trees, matrix, row, sums, alive);
    while (row < rows) : (row += 1) scoreRows(1, trees, matrix, row, sums, alive);
}

fn scoreRows(
    comptime count: usize,
    trees: *const Trees,
    matrix: [*]const f64,
    row: usize,
    sums: [*]f64,
    alive: [*]Word,
) void {
    @setRuntimeSafety(false);
    for (0..count) |at| {
        const values = matrix[(row + at) * trees.features ..][0..trees.features];
        removeLeaves(trees, values, alive + at * trees.words);
    }
    for (0..trees.outputs) |output| {
        const found = addLeaves(count, trees, output, alive);
        for (found, row..) |sum, to| sums[to * trees.outputs + output] = sum;
    }
}

fn removeLeaves(trees: *const Trees, values: []const f64, alive: [*]Word) void {
    @setRuntimeSafety(false);
    @memset(alive[0..trees.words], all);
    var first: usize = 0;
    while (first < values.len) : (first += block) {
        removeBlock(trees, first, values[first..@min(first + block, values.len)], alive);
    }
}

fn removeBlock(trees: *const Trees, first: usize, values: []const f64, alive: [*]Word) void {
    @setRuntimeSafety(false);
    var removals: [block]Removal = undefined;
    var count: usize = 0;
    for (values, first..) |value, feature| {
        removals[count] = removalOf(trees, feature, value, alive) orelse continue;
        count += 1;
    }
    var at: usize = 0;
    while (at < trees.words) : (at += lanes) {
        var kept: Lanes = alive[at..][0..lanes].*;
        for (removals[0..count]) |removal| kept &= @as(Lanes, removal.row[at..][0..lanes].*);
        alive[at..][0..lanes].* = kept;
    }
    for (removals[0..count]) |removal| remove(trees, alive, removal.start, removal.end);
}

/// None where it is little, and done at once.
fn removalOf(trees: *const Trees, feature: usize, value: f64, alive: [*]Word) ?Removal {
    @setRuntimeSafety(false);
    const codes = trees.coded_start[feature + 1] - trees.coded_start[feature];
    if (codes > 1 or (codes == 1 and value != value)) {
        const row: usize = trees.coded_start[feature] + codeOf(value, codes);
        return .{ .row = trees.coded + row * trees.words, .start = 0, .end = 0 };
    }
    const start: usize = trees.threshold_start[feature];
    const below = countBelow(trees.search + trees.search_start[feature], trees.search_depth[feature], value);
    if (below < trees.stride) {
        remove(trees, alive, start, start + below);
        return null;
    }
    const strides = below >> @intCast(@ctz(trees.stride));
    const row = trees.passed_start[feature] + strides - 1;
    return .{ .row = trees.passed + row * trees.words, .start = start + strides * trees.stride, .end = start + below };
}

fn remove(trees: *const Trees, alive: [*]Word, start: usize, end: usize) void {
    @setRuntimeSafety(false);
    for (trees.word[start..end], trees.mask[start..end]) |word, mask| alive[word] &= mask;
}

/// The row of a value among `codes` rows: the last is for a missing one, the one before it for codes that there are not.
fn codeOf(value: f64, codes: u32) u32 {
    @setRuntimeSafety(false);
    if (value != value) return codes - 1;
    const known: f64 = @floatFromInt(codes - 2);
    if (value >= 0 and value < known and @floor(value) == value) return @intFromFloat(value);
    return codes - 2;
}

/// How many thresholds lie below `value`. They stand in a full binary tree of this depth, its root at 1, padded by
/// infinities; the way down has no branch that a processor could foresee wrongly.
fn countBelow(search: [*]const f64, depth: u8, value: f64) usize {
    @setRuntimeSafety(false);
    var at: usize = 1;
    for (0..depth) |_| at = 2 * at + @intFromBool(search[at] < value);
    return at - (@as(usize, 1) << @intCast(depth));
}

fn addLeaves(comptime count: usize, trees: *const Trees, output: usize, alive: [*]const Word) [count]f64 {
    @setRuntimeSafety(false);
    var sums: [count]f64 = undefined;
    inline for (0..count) |at| sums[at] = leafOf(trees, output, alive + at * trees.words);
    var tree = output + trees.outputs;
    while (tree < trees.trees) : (tree += trees.outputs) {
        inline for (0..count) |at| sums[at] += leafOf(trees, tree, alive + at * trees.words);
    }
    return sums;
}

fn leafOf(trees: *const Trees, tree: usize, alive: [*]const Word) f64 {
    @setRuntimeSafety(false);
    var word = trees.tree_start[tree];
    while (alive[word] == 0 and word + 1 < trees.tree_start[tree + 1]) word += 1;
    return trees.leaf[trees.word_leaf[word] + @as(usize, @ctz(alive[word]))];
}
