//! Whole utterances through a tiny model with a CTC head, in every way to find their text.

use super::parity::{Aligned, fixture};
use super::streams::noise;
use crate::{Decoding, Limits, Transcriber, transcriber_memory};
use kinglet_kernels::{InstructionSet, Kernels};
use kinglet_model_format::Model;
use kinglet_model_format::pack::{Checkpoint, PackError, pack};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::Path;
use std::string::String;
use std::vec::Vec;
use std::{format, fs, vec};

const VOCABULARY: usize = 64;
const WIDTH: usize = 32;

/// The checkpoint `tiny` with a random CTC head, in a folder that is gone afterwards.
fn with_head(ctc: &str, test: impl FnOnce(&Path)) {
    let folder = std::env::temp_dir().join(format!("kinglet-ctc-{}-{}", std::process::id(), ctc.len()));
    fs::create_dir_all(&folder).expect("a folder");
    let config = fs::read_to_string(fixture("tiny").join("config.json")).expect("a config");
    let config = config.replacen(" \"output\"", &format!(" \"ctc\": {ctc},\n \"output\""), 1);
    fs::write(folder.join("config.json"), config).expect("written");
    fs::copy(fixture("tiny").join("vocabulary.txt"), folder.join("vocabulary.txt")).expect("copied");
    let tensors = fs::read(fixture("tiny").join("model.safetensors")).expect("tensors");
    let tensors = SafeTensors::deserialize(&tensors).expect("tensors");
    let mut state = 7u32;
    let mut random = |count: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Large, so that no two hypotheses are nearly as probable.
            4.0 * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        (0..count).flat_map(|_| next().to_le_bytes()).collect()
    };
    let (weight, bias) = (random(VOCABULARY * WIDTH), random(VOCABULARY));
    let mut all: Vec<(String, TensorView<'_>)> = tensors.tensors();
    let view = |shape, data| TensorView::new(Dtype::F32, shape, data).expect("a tensor");
    all.push(("ctc.weight".into(), view(vec![VOCABULARY, WIDTH], &weight)));
    all.push(("ctc.bias".into(), view(vec![VOCABULARY], &bias)));
    safetensors::serialize_to_file(all, None, &folder.join("model.safetensors")).expect("written");
    test(&folder);
    fs::remove_dir_all(&folder).expect("removed");
}

fn tokens(model: Model<'_>, kernels: Kernels, beam: usize, decoding: Decoding) -> Vec<u32> {
    let limits = Limits { utterance_seconds: 2.0, beam, decoding };
    let mut region = vec![0xa5; transcriber_memory(&model, &limits).expect("a size")];
    let mut transcriber = Transcriber::new(model, kernels, limits, &mut region).expect("a transcriber");
    let samples = noise(30_000, 9000);
    // The second utterance must not depend on the first.
    transcriber.transcribe(&samples[..9000]).expect("a transcript");
    let transcript = transcriber.transcribe(&samples).expect("a transcript");
    for word in transcript.words() {
        assert!(word.start_seconds < word.end_seconds && word.end_seconds <= 2.0, "{word:?}");
        assert!((0.0..=1.0).contains(&word.confidence), "{word:?}");
    }
    transcript.tokens().to_vec()
}

#[test]
fn every_decoding_gives_the_same_everywhere() {
    for ctc in [r#"{"blank": 0}"#, r#"{"blank": 63, "activation_bits": 16}"#] {
        with_head(ctc, |folder| {
            let packed = pack(&Checkpoint::open(folder).expect("a checkpoint"), &mut |_, _| ());
            let file = Aligned::new(&packed.expect("it packs").bytes);
            let model = Model::parse(file.bytes()).expect("a model");
            let scalar = Kernels::new(InstructionSet::Scalar).expect("scalar");
            let rescore = |ctc_weight| Decoding::Rescore { ctc_weight };
            for decoding in [Decoding::CtcGreedy, Decoding::CtcBeam, rescore(0.0), rescore(0.5)] {
                let want = tokens(model, scalar, 5, decoding);
                assert!(!want.is_empty(), "{decoding:?}");
                for kernels in Kernels::available() {
                    assert_eq!(tokens(model, kernels, 5, decoding), want, "{decoding:?}");
                }
            }
            // A weight that drowns the decoder's word leaves the order of the search before it.
            let by_ctc = tokens(model, scalar, 5, Decoding::CtcBeam);
            assert_eq!(tokens(model, scalar, 5, rescore(100.0)), by_ctc);
            // One hypothesis is followed by its best frames.
            let greedy = tokens(model, scalar, 1, Decoding::CtcGreedy);
            assert_eq!(tokens(model, scalar, 1, Decoding::CtcBeam), greedy);
            // The head changes nothing for the decoder.
            assert_eq!(
                tokens(model, scalar, 1, Decoding::Attention),
                without_head(scalar),
                "the decoder's own text"
            );
        });
    }
}

fn without_head(kernels: Kernels) -> Vec<u32> {
    let file = super::parity::packed("tiny");
    tokens(Model::parse(file.bytes()).expect("a model"), kernels, 1, Decoding::Attention)
}

#[test]
fn a_blank_outside_the_vocabulary_is_refused() {
    with_head(r#"{"blank":  64}"#, |folder| {
        let result = pack(&Checkpoint::open(folder).expect("a checkpoint"), &mut |_, _| ());
        let error = result.expect_err("an error");
        assert!(matches!(error, PackError::Refused(_)), "{error}");
        assert!(format!("{error}").contains("blank token"), "{error}");
    });
}
