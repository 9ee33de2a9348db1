//! Products with symbols of a trellis: on every instruction set what the levels give as int4.

use kinglet_model_format::trellis::{LEVEL_AT, level};
use kinglet_model_format::{Int3Coding, OUTPUT_BLOCK};

use super::int3::{Int3Case, check_products, check_rows};
use super::int4::Int4Case;
use super::*;

fn random(seed: u64, rows: usize, inputs: usize, outputs: usize, group: usize) -> Int3Case {
    let int4 = Int4Case::random(seed, rows, inputs, outputs, group);
    let mut noise = Noise(seed | 1);
    let padded = round_up(outputs, OUTPUT_BLOCK) * round_up(inputs, INPUT_PAD);
    named(int4, &(0..padded).map(|_| noise.next() as u8 % 8).collect::<Vec<_>>())
}

/// What `symbols` `[padded inputs][padded outputs]` name. Both layouts weight by weight, as the format says them.
fn named(mut int4: Int4Case, symbols: &[u8]) -> Int3Case {
    let (padded_outputs, padded) = (round_up(int4.outputs, OUTPUT_BLOCK), round_up(int4.inputs, INPUT_PAD));
    int4.values.fill(0);
    let mut packed = vec![0; padded_outputs * padded / 8 * 3];
    for (input, column) in symbols.chunks_exact(padded_outputs).enumerate() {
        for (output, &symbol) in column.iter().enumerate() {
            let before = |steps: usize| output.checked_sub(4 * steps).map_or(0, |output| column[output]);
            let level = level(symbol | before(1) << 3, before(2) | before(3) << 3);
            let (block, lane) = (output / 16 * (padded / 8) + input / 8, output % 16);
            int4.values[(block * 16 + lane) * 4 + input % 4] |= (level as u8 & 0xf) << (input / 4 % 2 * 4);
            // Which pair of this byte, and which half of it.
            let (byte, pair, half) = (lane % 4 * 4 + input % 4, lane / 8, 1 - lane / 4 % 2);
            let first = block * 48 + byte;
            match (input / 4 % 2, pair) {
                (0, vector) => packed[first + 16 * vector] |= symbol << (3 * half),
                (_, 0) => packed[first + 32] |= symbol << (3 * half),
                _ => {
                    let bits = u32::from(symbol) << (3 * half);
                    (0..3).for_each(|vector| {
                        packed[first + 16 * vector] |= (bits >> (2 * vector) & 3) as u8 * 64;
                    });
                }
            }
        }
    }
    Int3Case { int4, coding: Int3Coding::Trellis, packed }
}

#[test]
fn products_are_those_of_int4() {
    check_products(random);
}

#[test]
fn extreme_values_do_not_overflow() {
    // A symbol that names the same outermost level again and again does not exist: these name 7 and -8 as often as symbols can.
    for outermost in [7, -8] {
        let mut column = [0; 32];
        for output in 0..32_usize {
            let before = |steps: usize| output.checked_sub(4 * steps).map_or(0, |output| column[output]);
            let of = |symbol: u8| level(symbol | before(1) << 3, before(2) | before(3) << 3);
            column[output] = (0..8).min_by_key(|&symbol| (of(symbol) - outermost).abs()).unwrap();
        }
        for kernels in Kernels::available() {
            for (rows, value) in [(1, -1.0), (1, 1.0), (9, -1.0), (9, 1.0)] {
                let mut int4 = Int4Case::random(7, rows, 700, 17, 32);
                int4.multipliers.fill(0xff);
                int4.source.fill(value);
                named(int4, &column.repeat(704)).check(kernels);
            }
        }
    }
}

#[test]
fn rows_are_those_of_int4() {
    check_rows(random);
}

/// Bytes written by hand: which bits of which byte are whose. The level at place 0 is -8, symbols of zero turn nothing.
#[test]
fn a_symbol_changes_a_weight_and_those_of_three_outputs_behind_it() {
    let mut case = random(1, 1, 16, 2 * OUTPUT_BLOCK, 16);
    case.int4.multipliers.fill(0x11);
    let mut changed = |byte: usize, bits: u8| {
        case.packed.fill(0);
        case.packed[byte] |= bits;
        let weights = case.weights();
        let all = (0..32).flat_map(|output| (0..16).map(move |input| (output, input)));
        all.map(|(output, input)| (output, input, weights.weight(output, input)))
            .filter(|&(_, _, weight)| weight != -8)
            .collect::<Vec<_>>()
    };
    // The first of 48 bytes: outputs 0 and 4, input 0. Symbol 1 of output 4 names the ninth level, of output 8 that at place 8, the second,
    // and turns by 37 ^ 4 = 33 what outputs 12 names and by 8 times that, 40 ^ 5 = 45, what output 16 does.
    assert_eq!(changed(0, 1), [(4, 0, -4), (8, 0, -6), (12, 0, LEVEL_AT[33]), (16, 0, LEVEL_AT[45])]);
    // The earlier output of the pair has the next three bits; the next byte the next input, four bytes on are the next output.
    assert_eq!(changed(5, 8)[0], (1, 1, -4));
    // The second vector has outputs 8 and 12, the third has the first two and input 4.
    assert_eq!(changed(16, 1)[0], (12, 0, -4));
    assert_eq!(changed(32, 1)[0], (4, 4, -4));
    // The fourth pair: two bits of each vector, from the lowest on.
    assert_eq!(changed(0, 64)[0], (12, 4, -4));
    assert_eq!(changed(16, 128)[0], (8, 4, -4));
    assert_eq!(changed(47, 128)[0], (11, 7, LEVEL_AT[4]));
    // The next 48 bytes are the next 8 inputs, behind 16 of them the next 16 outputs.
    assert_eq!(changed(48, 1)[0], (4, 8, -4));
    assert_eq!(changed(96, 1)[0], (20, 0, -4));
}
