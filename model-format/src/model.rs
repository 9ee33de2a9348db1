//! The whole model: parse once, then trust.

use crate::block::{Convolution, CtcHead, EncoderBlock, Norm, OutputHead, Resolver};
use crate::config::{Config, FrontendKind, MAX_MERGED, Positions};
use crate::decoder_block::DecoderBlock;
use crate::error::{FormatError, Rule};
use crate::filter_bank::FilterBank;
use crate::layer::{Layer, LayerKind, LayerTable};
use crate::residual::check_sharing;
use crate::section::{Section, SectionKind, parse_sections};
use crate::tensor::TensorTable;
use crate::text::{Texts, Vocabulary};

/// How much of a file's checksums is verified.
///
/// Memory safety never rests on a checksum: every value that is used as a length or an index is checked by
/// itself. A checksum finds a flipped bit in a weight, which would otherwise only spoil the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// All sections: reads every byte of the file once.
    #[default]
    All,
    /// All sections but `data`: reads some tens of kilobytes, for a start from slow flash.
    Tables,
}

/// A checked model, borrowed from the bytes of its file.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    config: Config,
    tensors: TensorTable<'a>,
    layers: LayerTable<'a>,
    vocabulary: Vocabulary<'a>,
    texts: Texts<'a>,
    encoder_norm: Norm<'a>,
    ctc: Option<CtcHead<'a>>,
    output: OutputHead<'a>,
    sections: [Section<'a>; SectionKind::ALL.len()],
}

impl<'a> Model<'a> {
    /// Checks a model file. `bytes` must begin on a 64-byte boundary.
    ///
    /// # Errors
    /// When any rule of `FORMAT.md` is broken; the error names section and rule.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        Self::parse_with(bytes, Verify::All)
    }

    /// [`Model::parse`] with a choice of the checksums that are verified.
    ///
    /// # Errors
    /// As [`Model::parse`].
    pub fn parse_with(bytes: &'a [u8], verify: Verify) -> Result<Self, FormatError> {
        let sections = parse_sections(bytes)?;
        for section in &sections {
            if verify == Verify::All || section.kind != SectionKind::Data {
                section.verify()?;
            }
        }
        let [config, tensors, layers, vocabulary, texts, data] = sections.map(|section| section.bytes);
        let config = Config::parse(config).map_err(|rule| SectionKind::Config.breaks(rule))?;
        let tensors = TensorTable::parse(tensors, data).map_err(|rule| SectionKind::Tensors.breaks(rule))?;
        let layers =
            LayerTable::parse(layers, tensors.len()).map_err(|rule| SectionKind::Layers.breaks(rule))?;
        let vocabulary = Vocabulary::parse(vocabulary, config.vocabulary)
            .map_err(|rule| SectionKind::Vocabulary.breaks(rule))?;
        let texts = Texts::parse(texts).map_err(|rule| SectionKind::Texts.breaks(rule))?;
        let (encoder_norm, ctc, output) =
            check_layers(&config, tensors, layers).map_err(|rule| SectionKind::Layers.breaks(rule))?;
        log::debug!("model `{}`: {} tensors, {} layers", texts.name, tensors.len(), layers.len());
        Ok(Self { config, tensors, layers, vocabulary, texts, encoder_norm, ctc, output, sections })
    }

    /// Sizes of the network.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All tensors.
    pub fn tensors(&self) -> TensorTable<'a> {
        self.tensors
    }

    /// All layers.
    pub fn layers(&self) -> LayerTable<'a> {
        self.layers
    }

    /// The bytes that each token stands for.
    pub fn vocabulary(&self) -> Vocabulary<'a> {
        self.vocabulary
    }

    /// Name, language, licence, provenance.
    pub fn texts(&self) -> Texts<'a> {
        self.texts
    }

    /// The file's sections, in file order.
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The convolutions of the frontend, in the order in which they run.
    pub fn convolutions(&self) -> impl Iterator<Item = Convolution<'a>> + use<'a> {
        let tensors = self.tensors;
        let mut inputs = 1;
        self.layers_of(LayerKind::Convolution).map_while(move |layer| {
            let convolution = Resolver { tensors, layer }.convolution(inputs).ok()?;
            inputs = convolution.outputs;
            Some(convolution)
        })
    }

    /// The filter bank in front of the encoder, where the frontend is one.
    pub fn filter_bank(&self) -> Option<FilterBank<'a>> {
        let FrontendKind::FilterBank(sizes) = self.config.frontend.kind else { return None };
        let layer = self.layers_of(LayerKind::FilterBank).next()?;
        Resolver { tensors: self.tensors, layer }.filter_bank(&self.config, sizes).ok()
    }

    /// Values a frame of the encoder's input: what the frontend makes.
    pub fn encoder_inputs(&self) -> usize {
        self.config.encoder_inputs()
    }

    /// The blocks of the encoder, in the order in which they run.
    pub fn encoder_blocks(&self) -> impl Iterator<Item = EncoderBlock<'a>> + use<'a> {
        let (tensors, config, source) = (self.tensors, self.config, self.encoder_inputs());
        self.layers_of(LayerKind::EncoderBlock).enumerate().map_while(move |(index, layer)| {
            let inputs = if index == 0 { source } else { config.encoder.width };
            Resolver { tensors, layer }.encoder_block(&config, inputs).ok()
        })
    }

    /// Frames of the frontend in one that the encoder makes: more than one where its blocks merge them.
    pub fn merged_frames(&self) -> usize {
        self.encoder_blocks().map(|block| block.merge).product()
    }

    /// The norm behind the encoder.
    pub fn encoder_norm(&self) -> Norm<'a> {
        self.encoder_norm
    }

    /// The blocks of the decoder, in the order in which they run.
    pub fn decoder_blocks(&self) -> impl Iterator<Item = DecoderBlock<'a>> + use<'a> {
        let (tensors, config) = (self.tensors, self.config);
        self.layers_of(LayerKind::DecoderBlock)
            .map_while(move |layer| Resolver { tensors, layer }.decoder_block(&config).ok())
    }

    /// The head that reads tokens off the encoder's frames, where the model has one.
    pub fn ctc(&self) -> Option<CtcHead<'a>> {
        self.ctc
    }

    /// The end of the network.
    pub fn output(&self) -> OutputHead<'a> {
        self.output
    }

    fn layers_of(&self, kind: LayerKind) -> impl Iterator<Item = Layer<'a>> + use<'a> {
        let layers = self.layers;
        layers.iter().filter(move |layer| layer.kind == kind)
    }
}

/// Checks that the layers are those that the config describes, in its order, and that each fits.
fn check_layers<'a>(
    config: &Config,
    tensors: TensorTable<'a>,
    layers: LayerTable<'a>,
) -> Result<(Norm<'a>, Option<CtcHead<'a>>, OutputHead<'a>), Rule> {
    check_sharing(layers)?;
    let mut remaining = layers.iter();
    let mut next = |kind: LayerKind| match remaining.next() {
        Some(layer) if layer.kind == kind => Ok(Resolver { tensors, layer }),
        _ => Err(Rule::LayerOrder),
    };
    let source = config.encoder_inputs();
    if let FrontendKind::FilterBank(sizes) = config.frontend.kind {
        next(LayerKind::FilterBank)?.filter_bank(config, sizes)?;
    } else {
        let mut channels = 1;
        for _ in 0..config.frontend.convolutions {
            channels = next(LayerKind::Convolution)?.convolution(channels)?.outputs;
        }
        if channels != source {
            return Err(Rule::LayerOrder);
        }
    }
    if config.encoder.positions == Positions::Sinusoidal && (source < 4 || !source.is_multiple_of(2)) {
        return Err(Rule::Range("positions"));
    }
    let (mut inputs, mut merged) = (source, 1);
    for _ in 0..config.encoder.layers {
        let resolver = next(LayerKind::EncoderBlock)?;
        let merge = resolver.encoder_block(config, inputs)?.merge;
        if merge > 1 && config.encoder.chunk.is_some() {
            return Err(Rule::MergedChunks { layer: resolver.layer.index });
        }
        merged *= merge;
        if merged > MAX_MERGED {
            return Err(Rule::Range("merged frames"));
        }
        inputs = config.encoder.width;
    }
    let encoder_norm = next(LayerKind::EncoderNorm)?.encoder_norm(config)?;
    let has_ctc = layers.iter().any(|layer| layer.kind == LayerKind::Ctc);
    let ctc = if has_ctc { Some(next(LayerKind::Ctc)?.ctc(config)?) } else { None };
    let mut hears = false;
    for _ in 0..config.decoder.layers {
        hears |= next(LayerKind::DecoderBlock)?.decoder_block(config)?.cross.is_some();
    }
    if !hears {
        return Err(Rule::Deaf);
    }
    let output = next(LayerKind::Output)?.output(config)?;
    if remaining.next().is_some() { Err(Rule::LayerOrder) } else { Ok((encoder_norm, ctc, output)) }
}
