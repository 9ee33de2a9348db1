//! Int3 weights to int4, in plain Rust.

use kinglet_model_format::trellis::level;
use kinglet_model_format::{Int3Block, Int3Matrix, WideBlock, widen_odd};

/// What stands before the first panel.
const NONE: Int3Block = [0; 48];

/// The odd numbers of panels from the `first`th on, as many as there is room for.
pub(crate) fn widen_odd_panels(weights: &Int3Matrix<'_>, first: usize, wide: &mut [i8]) {
    let blocks = weights.blocks().iter().skip(first * weights.panel_blocks());
    for (wide, block) in wide.as_chunks_mut().0.iter_mut().zip(blocks) {
        widen_odd(block, wide);
    }
}

/// The levels that symbols of panels from the `first`th on name, likewise.
pub(crate) fn widen_trellis(weights: &Int3Matrix<'_>, first: usize, wide: &mut [i8]) {
    for_each_block(weights, first, wide, widen_block);
}

/// What `widen` makes of each block and the one of the same inputs in the panel before.
#[inline(always)]
pub(crate) fn for_each_block(
    weights: &Int3Matrix<'_>,
    first: usize,
    wide: &mut [i8],
    widen: impl Fn(&Int3Block, &Int3Block, &mut WideBlock),
) {
    let (blocks, of_panel) = (weights.blocks(), weights.panel_blocks());
    let wide = wide.as_chunks_mut().0;
    let without = if first == 0 { of_panel.min(wide.len()) } else { 0 };
    let (beginning, wide) = wide.split_at_mut(without);
    for (wide, block) in beginning.iter_mut().zip(blocks) {
        widen(block, &NONE, wide);
    }
    let behind = blocks.get(first * of_panel + without..).unwrap_or(&[]);
    let before = blocks.get(first.saturating_sub(1) * of_panel..).unwrap_or(&[]);
    for ((wide, block), before) in wide.iter_mut().zip(behind).zip(before) {
        widen(block, before, wide);
    }
}

fn widen_block(block: &Int3Block, before: &Int3Block, wide: &mut WideBlock) {
    for byte in 0..16 {
        let [now, then] = [block, before].map(|block| pairs(block, byte));
        let levels = [0, 1].map(|input| {
            // Symbols of every fourth output: what two and two of them name, one further each time.
            let ([first, second], [third, fourth]) = (then[input], now[input]);
            let between = |a: u8, b: u8| a << 3 & 0x38 | b >> 3;
            let (a, b, c) = (between(first, second), between(second, third), between(third, fourth));
            [level(b, a), level(third, second), level(c, b), level(fourth, third)]
        });
        for step in 0..4 {
            wide[16 * step + byte] = levels[0][step] & 0xf | levels[1][step] << 4;
        }
    }
}

/// Of both inputs the pairs of symbols that one byte of each vector holds.
fn pairs(block: &Int3Block, byte: usize) -> [[u8; 2]; 2] {
    let [a, b, c] = [block[byte], block[16 + byte], block[32 + byte]];
    [[a & 63, b & 63], [c & 63, a >> 6 | b >> 6 << 2 | c >> 6 << 4]]
}
