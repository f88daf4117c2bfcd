//! Writes what becomes of rows that rows.zig has read: their answers, and what is logged of them, both as JSON.
//!
//! Compiled with runtime safety: an index outside of a slice ends the process.

const std = @import("std");
const Writer = @import("writer.zig").Writer;

/// What is the same for all requests of a release. `Answerer` of answers.py fills it.
pub const Form = extern struct {
    /// `exp` of the C library where scores are 1 / (1 + exp(-sum)), null where they are the sums.
    exp: ?*const fn (f64) callconv(.c) f64,
    /// Labels say whether the score reaches it; there are none where it is not a number.
    threshold: f64,
};

/// One request, or a part of it. `_Part` of answers.py fills it.
pub const Part = extern struct {
    /// The first row, and the one after the last.
    begin: usize,
    end: usize,
    sums: [*]const f64,
    /// The rows' values as rows.zig writes them.
    values: [*]const u8,
    ends: [*]const u32,
    /// What is logged of each row beside: a JSON object a line, of which the first `context_at` bytes are written already. Null
    /// where there is no entity, and the rows happen now.
    contexts: ?[*]const u8,
    contexts_length: usize,
    context_at: usize = 0,
    /// Random bytes of which identities are made.
    random: [*]const u8,
    /// Microseconds since 1970 in UTC.
    moment: u64,
    text: [*]u8,
    capacity: usize,
    /// Where the answers end in `text`, and the records after them.
    answers_end: usize = 0,
    records_end: usize = 0,
};

const random_bytes = 15;
const identity_bytes = 36;
const hexadecimal = "0123456789abcdef";

/// Writes the answers as the elements of a JSON array, then the records so; false where a score is not finite.
///
/// Identities are UUIDs (RFC 9562, version 4), random but for their last three digits, which count the rows of the request.
pub export fn write_answers(form: *const Form, part: *Part) callconv(.c) bool {
    var writer = Writer{ .text = part.text[0..part.capacity] };
    const identity = makeIdentity(part.random[0..random_bytes]);
    for (part.begin..part.end) |row| {
        const score = scoreOf(form, part.sums[row]);
        if (!std.math.isFinite(score)) return false;
        if (row > part.begin) writer.write(",");
        writer.write("{\"prediction_id\":\"");
        writer.write(&numbered(identity, row));
        writer.write("\",\"score\":");
        writer.number(score);
        if (score >= form.threshold) writer.write(",\"label\":true") //
        else if (score < form.threshold) writer.write(",\"label\":false");
        writer.write("}");
    }
    part.answers_end = writer.at;
    const moment = makeMoment(part.moment);
    var start = if (part.begin == 0) 0 else part.ends[part.begin - 1];
    for (part.begin..part.end) |row| {
        if (row > part.begin) writer.write(",");
        writer.write("{\"id\":\"");
        writer.write(&numbered(identity, row));
        writer.write("\",");
        if (nextContext(part)) |members| {
            writer.write(members);
        } else {
            writer.write("\"entity\":null,\"event_time\":\"");
            writer.write(&moment);
            writer.write("\"");
        }
        writer.write(",\"served_at\":\"");
        writer.write(&moment);
        writer.write("\",\"score\":");
        writer.number(scoreOf(form, part.sums[row]));
        writer.write(",\"features\":");
        writer.write(part.values[start..part.ends[row]]);
        writer.write("}");
        start = part.ends[row];
    }
    part.records_end = writer.at;
    return true;
}

/// The scores alone, for whoever wants to see that they have the bits of the same formula elsewhere.
pub export fn score_sums(form: *const Form, sums: [*]const f64, count: usize, scores: [*]f64) callconv(.c) void {
    for (sums[0..count], scores[0..count]) |sum, *score| score.* = scoreOf(form, sum);
}

fn scoreOf(form: *const Form, sum: f64) f64 {
    const exp = form.exp orelse return sum;
    return 1.0 / (1.0 + exp(-sum));
}

/// The members of the next row's object, without its braces.
fn nextContext(part: *Part) ?[]const u8 {
    const contexts = (part.contexts orelse return null)[0..part.contexts_length];
    const start = part.context_at;
    const end = std.mem.indexOfScalarPos(u8, contexts, start, '\n').?;
    part.context_at = end + 1;
    return contexts[start + 1 .. end - 1];
}

fn makeIdentity(random: *const [random_bytes]u8) [identity_bytes]u8 {
    var digits: [2 * random_bytes]u8 = undefined;
    for (random, 0..) |byte, at| {
        digits[2 * at] = hexadecimal[byte >> 4];
        digits[2 * at + 1] = hexadecimal[byte & 15];
    }
    return (digits[0..8] ++ "-" ++ digits[8..12] ++ "-4" ++ digits[12..15] ++ "-8" ++ digits[15..18] ++ "-" ++
        digits[18..27] ++ "000").*;
}

fn numbered(identity: [identity_bytes]u8, row: usize) [identity_bytes]u8 {
    var found = identity;
    for (0..3) |at| found[identity_bytes - 1 - at] = hexadecimal[(row >> @intCast(4 * at)) & 15];
    return found;
}

/// As RFC 3339 has it, with six digits of a second.
fn makeMoment(microseconds: u64) [27]u8 {
    const epoch = std.time.epoch.EpochSeconds{ .secs = microseconds / 1_000_000 };
    const day = epoch.getEpochDay().calculateYearDay();
    const month = day.calculateMonthDay();
    const time = epoch.getDaySeconds();
    var text: [27]u8 = "0000-00-00T00:00:00.000000Z".*;
    putDigits(text[0..4], day.year);
    putDigits(text[5..7], month.month.numeric());
    putDigits(text[8..10], month.day_index + 1);
    putDigits(text[11..13], time.getHoursIntoDay());
    putDigits(text[14..16], time.getMinutesIntoHour());
    putDigits(text[17..19], time.getSecondsIntoMinute());
    putDigits(text[20..26], microseconds % 1_000_000);
    return text;
}

fn putDigits(text: []u8, value: u64) void {
    var left = value;
    var at = text.len;
    while (at > 0) : (left /= 10) {
        at -= 1;
        text[at] = @intCast('0' + left % 10);
    }
}
