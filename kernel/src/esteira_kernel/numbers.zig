//! Decimal numbers read as the nearest double, ties to even.
//!
//! Numbers of up to 19 digits with small exponents, as nearly all are, by the algorithm of Eisel and Lemire (D. Lemire, Number
//! Parsing at a Gigabyte per Second, 2021); the others by the standard library, which takes twice as long.

/// Digits that always fit into 64 bits.
pub const most_digits = 19;

/// Powers of ten that `nearest` knows: of these the power of five fits into 64 bits.
const most_exponent = 27;
/// Of these the double is exact.
const exact_exponent = 22;

/// The double nearest to `digits` times ten to the power of `exponent`; null where it is for the standard library to say.
pub fn nearest(digits: u64, exponent: i32) ?f64 {
    if (digits == 0) return 0;
    if (@abs(exponent) > most_exponent) return null;
    if (digits <= 1 << 53 and @abs(exponent) <= exact_exponent) { // both are exact, and so one rounding is all
        const value: f64 = @floatFromInt(digits);
        const power = exact_powers[@abs(exponent)];
        return if (exponent < 0) value / power else value * power;
    }
    return approximate(digits, exponent);
}

/// With the names of the paper: w is the digits, q the exponent, z the product.
fn approximate(w: u64, q: i32) f64 {
    const leading = @clz(w);
    const power = powers_of_five[@intCast(q + most_exponent)];
    var z = @as(u128, w << @intCast(leading)) * @as(u64, @truncate(power >> 64));
    if (@as(u64, @truncate(z >> 64)) & 0x1ff == 0x1ff) { // what was cut off may carry into the bits that count
        const rest = @as(u128, w << @intCast(leading)) * @as(u64, @truncate(power));
        z += rest >> 64;
    }
    const high: u64 = @truncate(z >> 64);
    const low: u64 = @truncate(z);
    const upper: u6 = @truncate(high >> 63);
    const shift: u6 = upper + (64 - 52 - 3);
    var mantissa = high >> shift;
    var binary: i32 = ((217706 * q) >> 16) + 63 + upper - @as(i32, leading) + 1023;
    if (low <= 1 and q >= -4 and q <= 23 and mantissa & 3 == 1 and mantissa << shift == high) mantissa &= ~@as(u64, 1); // a tie
    mantissa = (mantissa + (mantissa & 1)) >> 1;
    if (mantissa >= 1 << 53) {
        mantissa = 1 << 52;
        binary += 1;
    }
    return @bitCast((mantissa & ((1 << 52) - 1)) | @as(u64, @intCast(binary)) << 52);
}

const exact_powers = blk: {
    var found: [exact_exponent + 1]f64 = undefined;
    var power = 1;
    for (&found) |*entry| {
        entry.* = power;
        power *= 10;
    }
    break :blk found;
};

/// Of 128 bits, the first of which is set: cut off for exponents of 0 and more, one above that for the others.
const powers_of_five = blk: {
    @setEvalBranchQuota(10_000);
    var found: [2 * most_exponent + 1]u128 = undefined;
    for (&found, 0..) |*entry, at| {
        const exponent = @as(comptime_int, at) - most_exponent;
        var power = 1;
        for (0..@abs(exponent)) |_| power *= 5;
        if (exponent < 0) {
            var bits = 0;
            while (1 << bits < power) bits += 1;
            entry.* = (1 << (bits + 127)) / power + 1;
        } else {
            while (power < 1 << 127) power *= 2;
            entry.* = power;
        }
    }
    break :blk found;
};
