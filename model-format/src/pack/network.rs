//! Walks the network that a config describes: which tensor goes where, in which kind.

use super::checkpoint::{
    Checkpoint, ConvolutionConfig, DecoderParts, FeedForwardWidth, FilterBankEntry, Stack,
};
use super::error::PackError;
use super::lay_out::{StoredTensor, store_bias, store_taps, store_vector};
use super::options::{PackOptions, Weights};
use super::share::{self, ShareReport, SharedMatrix, StackPlan};
use super::steps::Grid;
use super::writer::{SlotList, Writer, activation_code};
use crate::config::{MAX_MERGE, MAX_MERGED};
use crate::decoder_block::DecoderForm;
use crate::filter_bank::Window;
use crate::layer::{LayerKind, Part, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

type Progress<'a> = &'a mut dyn FnMut(usize, usize);

pub(crate) fn write_network(
    checkpoint: &Checkpoint,
    options: &PackOptions,
    writer: &mut Writer,
    progress: Progress<'_>,
) -> Result<Vec<ShareReport>, PackError> {
    let unused: BTreeSet<String> = checkpoint.names().into_iter().collect();
    let share = share::plan(&checkpoint.config, &options.sharing)?;
    let total = unused.len();
    let (shared, reports) = (BTreeMap::new(), Vec::new());
    let overridden = vec![false; options.overrides.len()];
    let mut packer =
        Packer { checkpoint, options, writer, progress, unused, total, overridden, share, shared, reports };
    packer.write()?;
    options.overrides.check_used(&packer.overridden)?;
    if packer.unused.is_empty() {
        Ok(packer.reports)
    } else {
        Err(PackError::Unused(packer.unused.into_iter().collect()))
    }
}

pub(super) struct Packer<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) options: &'a PackOptions,
    pub(super) writer: &'a mut Writer,
    progress: Progress<'a>,
    pub(super) unused: BTreeSet<String>,
    total: usize,
    /// Which overrides were followed.
    overridden: Vec<bool>,
    pub(super) share: [StackPlan; 2],
    /// By name, without `.weight`.
    pub(super) shared: BTreeMap<String, SharedMatrix>,
    pub(super) reports: Vec<ShareReport>,
}

impl Packer<'_> {
    fn write(&mut self) -> Result<(), PackError> {
        let config = &self.checkpoint.config;
        if config.encoder.feed_forward_first || config.encoder.blocks.is_some() {
            let message = "encoder: `feed_forward_first` and `blocks` are for the decoder";
            return Err(PackError::Value(message.into()));
        }
        if config.decoder.merge.is_some() {
            return Err(PackError::Value("decoder: `merge` is for the encoder".into()));
        }
        let merge = merge(&config.encoder)?;
        for (name, stack) in [("encoder", &config.encoder), ("decoder", &config.decoder)] {
            check_widths(name, stack)?;
        }
        if let Some(bank) = &config.frontend.filter_bank {
            self.filter_bank(bank, config.encoder_inputs())?;
        }
        let mut channels = 1;
        for (index, convolution) in config.frontend.convolutions.iter().enumerate() {
            self.convolution(index, convolution, channels)?;
            channels = convolution.channels;
        }
        for (index, merge) in merge.into_iter().enumerate() {
            let inputs = if index == 0 { config.encoder_inputs() } else { config.encoder.width };
            self.encoder_block(index, &config.encoder, inputs, merge)?;
        }
        let mut slots = SlotList::new();
        self.norm(&mut slots, Role::FinalNorm, "encoder.norm", config.encoder.width)?;
        self.writer.layer(LayerKind::EncoderNorm, [0; 6], slots);
        if let Some(ctc) = &config.ctc {
            let mut slots = SlotList::new();
            self.linear(&mut slots, Role::CtcOutput, "ctc", config.output.vocabulary, config.encoder.width)?;
            self.writer.layer(LayerKind::Ctc, [ctc.activation_bits, ctc.blank, 0, 0, 0, 0], slots);
        }
        for index in 0..config.decoder.layers {
            self.decoder_block(index, &config.decoder, config.encoder.width)?;
        }
        let mut slots = SlotList::new();
        let (width, vocabulary) = (config.decoder.width, config.output.vocabulary);
        self.norm(&mut slots, Role::FinalNorm, "decoder.norm", width)?;
        self.linear(&mut slots, Role::Embedding, "decoder.embedding", vocabulary, width)?;
        if !config.output.tied {
            self.linear(&mut slots, Role::Vocabulary, "decoder.output", vocabulary, width)?;
        }
        self.writer.layer(LayerKind::Output, [config.output.activation_bits, 0, 0, 0, 0, 0], slots);
        Ok(())
    }

    /// Shift and scale of the frames; everything else that a filter bank has is reckoned.
    fn filter_bank(&mut self, bank: &FilterBankEntry, width: usize) -> Result<(), PackError> {
        let window = match bank.window.as_str() {
            "hamming" => Window::Hamming,
            "povey" => Window::Povey,
            "hann" => Window::Hann,
            other => return Err(PackError::Value(format!("window `{other}` is unknown"))),
        };
        let mut slots = SlotList::new();
        for (role, name) in [(Role::FeatureShift, "frontend.shift"), (Role::FeatureScale, "frontend.scale")] {
            let values = self.take(name, &[width])?;
            self.put(&mut slots, role, Part::Weight, store_vector(name, &values));
        }
        let pre_emphasis = bank.pre_emphasis.to_bits();
        let parameters = [window as u32 + 1, pre_emphasis, bank.low_hz, bank.high_hz, 0, 0];
        self.writer.layer(LayerKind::FilterBank, parameters, slots);
        Ok(())
    }

    fn convolution(
        &mut self,
        index: usize,
        config: &ConvolutionConfig,
        channels: usize,
    ) -> Result<(), PackError> {
        let prefix = format!("frontend.conv.{index}");
        let (outputs, kernel) = (config.channels, config.kernel);
        let mut slots = SlotList::new();
        let name = format!("{prefix}.weight");
        let weight = self.take(&name, &[outputs, channels, kernel])?;
        // Frames lie one behind the other with their channels side by side, so a kernel does too.
        let inputs = channels * kernel;
        let mut rows = Vec::with_capacity(weight.len());
        for output in weight.chunks_exact(inputs) {
            for tap in 0..kernel {
                rows.extend((0..channels).map(|channel| output[channel * kernel + tap]));
            }
        }
        let storage = match channels {
            1 => self.options.waveform_storage(&prefix, &mut self.overridden)?,
            _ => self.options.storage(Role::Kernel, &prefix, &mut self.overridden)?,
        };
        let grid = self.grid(&prefix, storage.weights, [outputs, inputs])?;
        let stored = storage.store(&name, &rows, outputs, inputs, grid.as_ref())?;
        self.put(&mut slots, Role::Kernel, Part::Weight, stored);
        self.bias(&mut slots, Role::Kernel, &prefix, outputs, store_bias)?;
        match config.norm.as_deref() {
            None => {}
            Some("group") => self.norm(&mut slots, Role::GroupNorm, "frontend.norm", outputs)?,
            Some(other) => return Err(PackError::Value(format!("norm `{other}` is unknown"))),
        }
        let stride = u32::try_from(config.stride).unwrap_or(u32::MAX);
        let activation = activation_code(&config.activation)?;
        let parameters = [kernel as u32, stride, activation, outputs as u32, config.activation_bits, 0];
        self.writer.layer(LayerKind::Convolution, parameters, slots);
        Ok(())
    }

    fn encoder_block(
        &mut self,
        index: usize,
        stack: &Stack,
        inputs: usize,
        merge: u32,
    ) -> Result<(), PackError> {
        let prefix = format!("encoder.layers.{index}");
        let mut slots = SlotList::new();
        self.norm(&mut slots, Role::AttentionNorm, &format!("{prefix}.attention_norm"), inputs)?;
        self.attention(&mut slots, SELF_ATTENTION, &format!("{prefix}.attention"), stack, [inputs; 2])?;
        self.memory(&mut slots, &format!("{prefix}.attention.memory"), stack, attention_width(stack))?;
        self.feed_forward(&mut slots, &prefix, stack, index)?;
        // Where nothing is merged the file says zero.
        let parameters = block_parameters(stack, if merge > 1 { merge } else { 0 });
        self.writer.layer(LayerKind::EncoderBlock, parameters, slots);
        Ok(())
    }

    fn decoder_block(&mut self, index: usize, stack: &Stack, attended: usize) -> Result<(), PackError> {
        let prefix = format!("decoder.layers.{index}");
        let mut slots = SlotList::new();
        let parts = decoder_parts(stack, index)?;
        if parts.self_attention || parts.memory {
            self.norm(
                &mut slots,
                Role::AttentionNorm,
                &format!("{prefix}.self_attention_norm"),
                stack.width,
            )?;
        }
        let name = format!("{prefix}.self_attention");
        if parts.self_attention {
            self.attention(&mut slots, SELF_ATTENTION, &name, stack, [stack.width; 2])?;
        }
        if parts.memory {
            let width = if parts.self_attention { attention_width(stack) } else { stack.width };
            self.memory(&mut slots, &format!("{name}.memory"), stack, width)?;
        }
        if parts.cross_attention {
            let name = format!("{prefix}.cross_attention");
            self.norm(&mut slots, Role::CrossNorm, &format!("{name}_norm"), stack.width)?;
            self.attention(&mut slots, CROSS_ATTENTION, &name, stack, [stack.width, attended])?;
        }
        self.feed_forward(&mut slots, &prefix, stack, index)?;
        let parameters = block_parameters(stack, decoder_form(stack, parts));
        self.writer.layer(LayerKind::DecoderBlock, parameters, slots);
        Ok(())
    }

    /// The kernel of a memory, `[width, kernel]` in the checkpoint, if the stack has one.
    fn memory(
        &mut self,
        slots: &mut SlotList,
        prefix: &str,
        stack: &Stack,
        width: usize,
    ) -> Result<(), PackError> {
        if let Some(memory) = stack.memory {
            let kernel = usize::from(memory.kernel);
            let name = format!("{prefix}.weight");
            let rows = self.take(&name, &[width, kernel])?;
            self.put(slots, Role::Memory, Part::Weight, store_taps(&name, &rows, width, kernel));
        }
        Ok(())
    }

    fn attention(
        &mut self,
        slots: &mut SlotList,
        roles: [Role; 4],
        prefix: &str,
        stack: &Stack,
        [width, attended]: [usize; 2],
    ) -> Result<(), PackError> {
        let inner = attention_width(stack);
        let [query, key, value, output] = roles;
        self.linear(slots, query, &format!("{prefix}.query"), inner, width)?;
        self.linear(slots, key, &format!("{prefix}.key"), inner, attended)?;
        self.linear(slots, value, &format!("{prefix}.value"), inner, attended)?;
        self.linear(slots, output, &format!("{prefix}.output"), stack.width, inner)
    }

    fn feed_forward(
        &mut self,
        slots: &mut SlotList,
        prefix: &str,
        stack: &Stack,
        index: usize,
    ) -> Result<(), PackError> {
        let (width, middle) = (stack.width, stack.feed_forward.of(index));
        self.norm(slots, Role::FeedForwardNorm, &format!("{prefix}.feed_forward_norm"), width)?;
        let prefix = format!("{prefix}.feed_forward");
        self.linear(slots, Role::Up, &format!("{prefix}.up"), middle, width)?;
        if stack.activation == "swiglu" {
            self.linear(slots, Role::Gate, &format!("{prefix}.gate"), middle, width)?;
        }
        if stack.inner_norm {
            self.norm(slots, Role::InnerNorm, &format!("{prefix}.norm"), middle)?;
        }
        self.linear(slots, Role::Down, &format!("{prefix}.down"), width, middle)
    }

    /// A matrix `[outputs, inputs]` as the options say, and its bias if there is one.
    fn linear(
        &mut self,
        slots: &mut SlotList,
        role: Role,
        prefix: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<(), PackError> {
        let storage = self.options.storage(role, prefix, &mut self.overridden)?;
        if !self.shared_matrix(slots, role, prefix, storage, [outputs, inputs])? {
            let name = format!("{prefix}.weight");
            let rows = self.take(&name, &[outputs, inputs])?;
            let grid = self.grid(prefix, storage.weights, [outputs, inputs])?;
            let stored = storage.store(&name, &rows, outputs, inputs, grid.as_ref())?;
            self.put(slots, role, Part::Weight, stored);
        }
        self.bias(slots, role, prefix, outputs, store_bias)
    }

    fn norm(
        &mut self,
        slots: &mut SlotList,
        role: Role,
        prefix: &str,
        width: usize,
    ) -> Result<(), PackError> {
        let name = format!("{prefix}.weight");
        let weight = self.take(&name, &[width])?;
        self.put(slots, role, Part::Weight, store_vector(&name, &weight));
        self.bias(slots, role, prefix, width, store_vector)
    }

    fn bias(
        &mut self,
        slots: &mut SlotList,
        role: Role,
        prefix: &str,
        length: usize,
        store: fn(&str, &[f32]) -> StoredTensor,
    ) -> Result<(), PackError> {
        let name = format!("{prefix}.bias");
        if self.unused.contains(&name) {
            let bias = self.take(&name, &[length])?;
            self.put(slots, role, Part::Bias, store(&name, &bias));
        }
        Ok(())
    }

    /// The grid that training chose for the matrix `prefix`, if it did. Only int4 and int3 weights lie on one.
    pub(super) fn grid(
        &mut self,
        prefix: &str,
        weights: Weights,
        [outputs, inputs]: [usize; 2],
    ) -> Result<Option<Grid>, PackError> {
        let (scale, multipliers) = (format!("{prefix}.scale"), format!("{prefix}.multipliers"));
        if !self.unused.contains(&scale) && !self.unused.contains(&multipliers) {
            return Ok(None);
        }
        let groups = self.checkpoint.shape(&multipliers).and_then(|shape| shape.get(1).copied()).unwrap_or(1);
        let scales = self.take(&scale, &[outputs])?;
        let multipliers = self.take(&multipliers, &[outputs, groups])?;
        let mut weights = weights;
        let Some(&mut group_inputs) = weights.group_inputs() else { return Ok(None) };
        Grid::new(prefix, inputs, group_inputs, scales, &multipliers).map(Some)
    }

    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, PackError> {
        (self.progress)(self.total - self.unused.len(), self.total);
        let values = self.checkpoint.floats(name, shape)?;
        self.unused.remove(name);
        Ok(values)
    }

    pub(super) fn put(&mut self, slots: &mut SlotList, role: Role, part: Part, tensor: StoredTensor) {
        let id = self.writer.tensor(tensor);
        slots.push((role, part, id));
    }
}

const SELF_ATTENTION: [Role; 4] = [Role::Query, Role::Key, Role::Value, Role::AttentionOutput];
const CROSS_ATTENTION: [Role; 4] = [Role::CrossQuery, Role::CrossKey, Role::CrossValue, Role::CrossOutput];

/// `third` is what the two stacks do not have in common: how many frames are merged, and the form of a decoder block.
fn block_parameters(stack: &Stack, third: u32) -> [u32; 6] {
    let down = stack.down_activation_bits.unwrap_or(stack.activation_bits);
    [stack.activation_bits, down, third, 0, 0, 0]
}

/// How many frames each block of the encoder first takes the mean of.
fn merge(stack: &Stack) -> Result<Vec<u32>, PackError> {
    let Some(merge) = &stack.merge else { return Ok(vec![1; stack.layers]) };
    let merged = merge.iter().fold(1, |product: usize, &frames| product.saturating_mul(frames as usize));
    let message = if merge.len() != stack.layers {
        format!("lists {} blocks of {}", merge.len(), stack.layers)
    } else if let Some(frames) = merge.iter().find(|frames| !(1..=MAX_MERGE).contains(*frames)) {
        format!("has {frames}, which is not 1 to {MAX_MERGE} frames")
    } else if merged > MAX_MERGED {
        format!("makes one frame of {merged}, at most {MAX_MERGED} are allowed")
    } else if merged > 1 && stack.chunk.is_some() {
        "cannot be had together with `chunk`: leave one of them out".into()
    } else {
        return Ok(merge.clone());
    };
    Err(PackError::Value(format!("encoder: `merge` {message}")))
}

fn check_widths(name: &str, stack: &Stack) -> Result<(), PackError> {
    match &stack.feed_forward {
        FeedForwardWidth::Each(widths) if widths.len() != stack.layers => {
            let message = format!("{name}: `feed_forward` lists {} blocks of {}", widths.len(), stack.layers);
            Err(PackError::Value(message))
        }
        _ => Ok(()),
    }
}

fn attention_width(stack: &Stack) -> usize {
    stack.heads.saturating_mul(stack.head_width)
}

fn decoder_parts(stack: &Stack, index: usize) -> Result<DecoderParts, PackError> {
    let all = DecoderParts { self_attention: true, memory: stack.memory.is_some(), cross_attention: true };
    let Some(blocks) = &stack.blocks else { return Ok(all) };
    let parts = blocks.get(index).filter(|_| blocks.len() == stack.layers).ok_or_else(|| {
        let (listed, layers) = (blocks.len(), stack.layers);
        PackError::Value(format!("decoder: `blocks` lists {listed} blocks of {layers}"))
    })?;
    if parts.memory && stack.memory.is_none() {
        let message = format!("decoder: block {index} has a memory, but there is no `memory`");
        return Err(PackError::Value(message));
    }
    Ok(*parts)
}

fn decoder_form(stack: &Stack, parts: DecoderParts) -> u32 {
    let flags = [
        (stack.feed_forward_first, DecoderForm::FEED_FORWARD_FIRST),
        (!parts.self_attention, DecoderForm::NO_SELF_ATTENTION),
        (!parts.cross_attention, DecoderForm::NO_CROSS_ATTENTION),
        (stack.memory.is_some() && !parts.memory, DecoderForm::NO_MEMORY),
    ];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()
}
