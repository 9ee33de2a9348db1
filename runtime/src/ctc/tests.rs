//! The searches against every alignment there is, spelled out.

use super::hypotheses::{Hypotheses, HypothesisBuffers};
use super::{FrameScores, greedy, prefix_beam};
use crate::sizes::Sizes;
use crate::tests::parity::packed;
use crate::{Decoding, Limits};
use kinglet_model_format::Model;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::vec;
use std::vec::Vec;

const BLANK: u32 = 0;

/// Log probabilities `[frames][vocabulary]` of a repeatable generator; `sharpness` sets how sure they are.
fn distributions(seed: u32, frames: usize, vocabulary: usize, sharpness: f32) -> Vec<Vec<f32>> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..frames)
        .map(|_| {
            let logits: Vec<f32> = (0..vocabulary).map(|_| sharpness * next()).collect();
            let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
            logits.iter().map(|logit| logit - sum.ln()).collect()
        })
        .collect()
}

/// What an alignment spells: neighbours that are equal are one, blanks are none.
fn spell(alignment: &[u32]) -> Vec<u32> {
    let mut spelled: Vec<u32> = alignment.to_vec();
    spelled.dedup();
    spelled.retain(|&token| token != BLANK);
    spelled
}

/// The probability of everything that can be spelled, by way of all alignments.
fn enumerate(distributions: &[Vec<f32>]) -> BTreeMap<Vec<u32>, f64> {
    let vocabulary = distributions[0].len();
    let mut spelled = BTreeMap::new();
    for code in 0..vocabulary.pow(distributions.len() as u32) {
        let digit = |frame: usize| (code / vocabulary.pow(frame as u32) % vocabulary) as u32;
        let alignment: Vec<u32> = (0..distributions.len()).map(digit).collect();
        let log: f64 =
            alignment.iter().zip(distributions).map(|(&token, frame)| f64::from(frame[token as usize])).sum();
        *spelled.entry(spell(&alignment)).or_insert(0.0) += log.exp();
    }
    spelled
}

/// Runs a search over `distributions` and gives its hypotheses with their log probabilities and spans.
fn search(distributions: &[Vec<f32>], beam: usize, max_tokens: usize) -> Vec<(Vec<u32>, f32, Vec<[u32; 2]>)> {
    static SIZES: OnceLock<Sizes> = OnceLock::new();
    let any = SIZES.get_or_init(|| {
        let file = packed("tiny");
        let model = Model::parse(file.bytes()).expect("a model");
        Sizes::of(&model, &Limits { utterance_seconds: 2.0, ..Limits::default() }).expect("sizes")
    });
    let sizes = Sizes { ctc_beam: beam, ..*any };
    let mut memory = vec![0xa5; HypothesisBuffers::bytes(&sizes) as usize + 64];
    let buffers = HypothesisBuffers::carve(&mut memory, &sizes).expect("room");
    let mut hypotheses = Hypotheses::new(buffers, &sizes);
    hypotheses.clear(max_tokens);
    for (frame, logits) in distributions.iter().enumerate() {
        let scores = FrameScores { frame: frame as u32, blank: BLANK, logits, log_sum_exp: 0.0 };
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        if beam == 1 {
            greedy::step(&scores, order[0], &mut hypotheses);
        } else {
            prefix_beam::step(&scores, &order, &mut hypotheses);
        }
    }
    (0..hypotheses.len())
        .map(|index| {
            let spans = hypotheses.spans(index).to_vec();
            assert_eq!(spans.len(), hypotheses.scores(index).len());
            (hypotheses.tokens(index).to_vec(), hypotheses.prefix(index).total(), spans)
        })
        .collect()
}

#[test]
fn prefix_beam_search_sums_all_alignments() {
    // Few enough strings that none falls out of a beam of eight: 1 + 2 + 4 over two tokens in two frames (of which `aa`
    // takes three), and the strings of one token.
    for (vocabulary, frames) in [(3, 2), (2, 2), (2, 3), (2, 7), (2, 13)] {
        for seed in 0..20 {
            let distributions = distributions(seed, frames, vocabulary, 3.0);
            let truth = enumerate(&distributions);
            let found = search(&distributions, 8, 100);
            assert_eq!(found.len(), truth.len().min(8));
            for (tokens, log, _) in &found {
                let expected = truth[tokens].ln();
                assert!((f64::from(*log) - expected).abs() < 1e-4, "{tokens:?}: {log}, {expected}");
            }
            let best = truth.values().copied().fold(0.0, f64::max);
            assert!((truth[&found[0].0] - best).abs() < 1e-6 * best);
            assert!(found.is_sorted_by(|a, b| a.1 >= b.1));
        }
    }
}

#[test]
fn a_narrow_beam_never_claims_more_than_there_is() {
    for seed in 0..20 {
        let distributions = distributions(seed, 6, 4, 6.0);
        let truth = enumerate(&distributions);
        let found = search(&distributions, 4, 100);
        for (tokens, log, spans) in &found {
            assert!(f64::from(*log) < truth[tokens].ln() + 1e-4, "{tokens:?}");
            assert!(spans.iter().all(|[first, last]| first <= last && *last < 6), "{spans:?}");
            assert!(spans.is_sorted_by(|a, b| a[0] < b[0]), "{spans:?}");
        }
        let mut texts: Vec<_> = found.iter().map(|(tokens, ..)| tokens.clone()).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), found.len(), "two hypotheses spell the same");
    }
}

#[test]
fn greedy_takes_the_best_of_each_frame() {
    for seed in 0..20 {
        let distributions = distributions(seed, 9, 3, 4.0);
        let best = |frame: &Vec<f32>| {
            (0..3u32).max_by(|&a, &b| frame[a as usize].total_cmp(&frame[b as usize])).expect("three")
        };
        let alignment: Vec<u32> = distributions.iter().map(best).collect();
        let log: f32 = alignment.iter().zip(&distributions).map(|(&token, f)| f[token as usize]).sum();
        let found = search(&distributions, 1, 100);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, spell(&alignment), "{alignment:?}");
        assert!((found[0].1 - log).abs() < 1e-4);
        for (token, [first, last]) in found[0].0.iter().zip(&found[0].2) {
            assert!(alignment[*first as usize..=*last as usize].iter().all(|heard| heard == token));
        }
    }
}

#[test]
fn no_transcript_is_longer_than_allowed() {
    let distributions = distributions(3, 12, 5, 8.0);
    for beam in [1, 2, 8] {
        for (tokens, log, _) in search(&distributions, beam, 2) {
            assert!(tokens.len() <= 2 && !log.is_nan());
        }
    }
}

#[test]
fn impossible_frames_are_survived() {
    let nothing = vec![vec![f32::NEG_INFINITY; 4]; 5];
    for beam in [1, 8] {
        for (_, log, _) in search(&nothing, beam, 10) {
            assert_eq!(log, f32::NEG_INFINITY);
        }
    }
}

#[test]
fn a_model_without_a_head_is_refused() {
    let file = packed("tiny");
    let model = Model::parse(file.bytes()).expect("a model");
    for decoding in [Decoding::CtcGreedy, Decoding::CtcBeam, Decoding::Rescore { ctc_weight: 0.5 }] {
        let limits = Limits { decoding, ..Limits::default() };
        assert_eq!(crate::transcriber_memory(&model, &limits), Err(crate::Error::NoCtcHead));
    }
    let limits = Limits { decoding: Decoding::Rescore { ctc_weight: f32::NAN }, ..Limits::default() };
    assert!(matches!(crate::transcriber_memory(&model, &limits), Err(crate::Error::Limit { .. })));
}
