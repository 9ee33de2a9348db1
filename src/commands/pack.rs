//! `kinglet pack`: a checkpoint folder becomes a model file.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kinglet_model_format::BlockShape;
use kinglet_model_format::pack::{
    Checkpoint, Groups, Overrides, PackOptions, Packed, Sharing, Sparse, Weights, pack_with,
};

use crate::failure::Failure;
use crate::partial_file::PartialFile;

/// Make a model file from a checkpoint folder
#[derive(Debug, Args)]
#[command(
    after_help = "The folder holds model.safetensors, config.json and vocabulary.txt, as training/ writes them.\n\n\
Examples:\n  kinglet pack training/out/tiny-en -o models/en.kgl\n  \
kinglet pack training/out/tiny-en --embedding int4-groups -o small.kgl\n  \
kinglet pack training/out/tiny-en --share encoder=3,decoder=3 --residual-rank 16 -o shared.kgl\n  \
kinglet pack training/out/tiny-en --block 4x4 --sparsity 0.25 --config careful.toml -o sparse.kgl\n\n\
careful.toml, in which `*` stands for anything and the last entry that names a matrix decides:\n  \
[[matrix]]\n  name = \"decoder.layers.*_attention.*\"\n  weights = \"int4\"      # int8, int4, int4-groups, float\n  \
group = 64            # of int4: inputs that share a multiplier\n  block = \"none\"        # 16x4, 4x16, 4x4, none\n\n  [[matrix]]\n  name = \"encoder.layers.*.feed_forward.*\"\n  sparsity = 0.5"
)]
pub struct Pack {
    /// The checkpoint folder
    folder: PathBuf,
    /// The model file to write; it appears only when it is complete
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How matrices of blocks and convolutions are stored
    #[arg(long, value_enum, default_value = "int8")]
    weights: Storage,
    /// How the embedding is stored, and the output matrix if it is another
    #[arg(long, value_enum, default_value = "int8")]
    embedding: Storage,
    /// Keep matrices of blocks and convolutions in blocks of outputs x inputs, and leave out those of zeros
    #[arg(long, value_enum, value_name = "SHAPE")]
    block: Option<Block>,
    /// Set this part of the blocks of each matrix to zero, those of the smallest weights: 0.5 is half of them
    #[arg(long, value_name = "PART", value_parser = part)]
    sparsity: Option<f32>,
    /// The processor that the model is for: chooses the shape of blocks where nothing else does. Matrices that are kept whole are
    /// the same for all, and every model runs everywhere
    #[arg(long, value_enum, default_value = "portable")]
    target: Target,
    /// Options for single matrices, a TOML file; `kinglet help pack` shows one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Make layers that follow each other share their matrices, as in `encoder=3,decoder=3`: the mean of each 3
    #[arg(long, value_name = "GROUPS")]
    share: Option<Groups>,
    /// Rank of what each layer that shares adds to the shared matrix, best a multiple of 16
    #[arg(long, value_name = "RANK", default_value_t = 0, requires = "share")]
    residual_rank: usize,
    /// Let each layer that shares add to the diagonal of square matrices, too
    #[arg(long, requires = "share")]
    residual_diagonal: bool,
}

/// Names of ways to store weights.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Storage {
    /// A byte a weight, one scale an output
    Int8,
    /// Four bytes a weight, nothing rounded: for comparisons, it is slow
    Float,
    /// Half a byte a weight, one scale an output: for weights that were trained for it
    Int4,
    /// Half a byte a weight, one scale an output and a multiplier, 1 to 15, for each 32 inputs of it
    Int4Groups,
    /// Three eighths of a byte a weight, one scale an output: for weights that were trained for it
    Int3,
    /// Three eighths of a byte a weight, one scale an output and a multiplier, 1 to 15, for each 32 inputs of it
    Int3Groups,
    /// As int3 with less noise, and more work for products of one row: for encoders that were calibrated for it
    Trellis,
    /// As trellis with a multiplier, 1 to 15, for each 32 inputs
    TrellisGroups,
}

impl From<Storage> for Weights {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::Int8 => Self::Int8,
            Storage::Float => Self::Float,
            Storage::Int4 => Self::Int4 { group_inputs: None },
            Storage::Int4Groups => Self::Int4 { group_inputs: Some(32) },
            Storage::Int3 => Self::Int3 { group_inputs: None },
            Storage::Int3Groups => Self::Int3 { group_inputs: Some(32) },
            Storage::Trellis => Self::Trellis { group_inputs: None },
            Storage::TrellisGroups => Self::Trellis { group_inputs: Some(32) },
        }
    }
}

/// Shapes of sparse blocks.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Block {
    /// 16 outputs x 4 inputs: fastest
    #[value(name = "16x4")]
    Outputs16Inputs4,
    /// 4 outputs x 16 inputs
    #[value(name = "4x16")]
    Outputs4Inputs16,
    /// 4 outputs x 4 inputs: costs the least accuracy
    #[value(name = "4x4")]
    Outputs4Inputs4,
}

impl From<Block> for BlockShape {
    fn from(block: Block) -> Self {
        match block {
            Block::Outputs16Inputs4 => Self::Outputs16Inputs4,
            Block::Outputs4Inputs16 => Self::Outputs4Inputs16,
            Block::Outputs4Inputs4 => Self::Outputs4Inputs4,
        }
    }
}

/// Processors.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Target {
    /// Cortex-A53, A72: no dot products
    Neon,
    /// Cortex-A55, A76 and later: dot products
    Dotprod,
    /// Neoverse N2, Cortex-A510 and later: matrix products
    I8mm,
    /// Any
    Portable,
}

impl Target {
    /// The shape for which this processor needs the fewest instructions a weight. That is one shape for all, by the
    /// counts in docs/packing.md; a processor for which another is better has its arm here.
    fn block(self) -> BlockShape {
        match self {
            Self::Neon | Self::Dotprod | Self::I8mm | Self::Portable => BlockShape::Outputs16Inputs4,
        }
    }
}

/// A number from 0 to 1.
fn part(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|part| (0.0..=1.0).contains(part)).ok_or("give a number from 0 to 1".into())
}

impl Pack {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<(), Failure> {
        let at_fault = |cause| Failure::input(self.folder.display(), format!("cannot be packed: {cause}"));
        let checkpoint = Checkpoint::open(&self.folder).map_err(at_fault)?;
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target).with_style(
            ProgressStyle::with_template("{bar:40} {pos}/{len} tensors")
                .unwrap_or(ProgressStyle::default_bar()),
        );
        let sharing = Sharing {
            groups: self.share.unwrap_or_default(),
            residual_rank: self.residual_rank,
            diagonal: self.residual_diagonal,
        };
        let sparse = self.block.is_some() || self.sparsity.is_some();
        let block = self.block.map_or(self.target.block(), BlockShape::from);
        let overrides = match &self.config {
            None => Overrides::default(),
            Some(path) => {
                let at_fault = |cause: &dyn std::fmt::Display| Failure::input(path.display(), cause);
                let text = std::fs::read_to_string(path).map_err(|cause| at_fault(&cause))?;
                Overrides::parse(&text).map_err(|cause| at_fault(&cause))?
            }
        };
        let options = PackOptions {
            weights: self.weights.into(),
            embedding: self.embedding.into(),
            sparse: sparse.then_some(Sparse { block, sparsity: self.sparsity }),
            overrides,
            sharing,
        };
        let packed = pack_with(&checkpoint, &options, &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        let packed = packed.map_err(at_fault)?;
        let written = PartialFile::create(&self.output).and_then(|mut file| {
            file.write_all(&packed.bytes)?;
            file.finish()
        });
        written.map_err(|cause| {
            Failure::other(self.output.display(), format!("cannot be written: {cause}; choose another place"))
        })?;
        if !quiet {
            report(&packed, &self.output.display().to_string())?;
        }
        Ok(())
    }
}

fn report(packed: &Packed, name: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<16} {:>14} {:>8} {:>11} {:>9}  tensor",
        "stored as", "shape", "density", "bytes", "error"
    )?;
    for tensor in &packed.tensors {
        let (mut kind, shape) = (tensor.kind.to_string(), format!("{} x {}", tensor.shape.0, tensor.shape.1));
        let (mut density, mut padded) = ("-".to_string(), "");
        if let Some(block) = tensor.block {
            kind = format!("{kind} {block}");
            density = format!("{:.1} %", tensor.density * 100.0);
            let whole = tensor.shape.0.is_multiple_of(block.outputs())
                && tensor.shape.1.is_multiple_of(block.inputs());
            padded = if whole { "" } else { " (padded to whole blocks)" };
        }
        let error = if tensor.relative_error > 0.0 {
            format!("{:.3} %", tensor.relative_error * 100.0)
        } else {
            "-".into()
        };
        writeln!(
            out,
            "{kind:<16} {shape:>14} {density:>8} {:>11} {error:>9}  {}{padded}",
            tensor.bytes, tensor.name
        )?;
    }
    let parameters: usize = packed.tensors.iter().map(|tensor| tensor.shape.0 * tensor.shape.1).sum();
    let stored: f64 = packed
        .tensors
        .iter()
        .map(|tensor| f64::from(tensor.density) * (tensor.shape.0 * tensor.shape.1) as f64)
        .sum();
    let bytes: usize = packed.tensors.iter().map(|tensor| tensor.bytes).sum();
    let (count, density) =
        (format!("{:.2} M", parameters as f64 / 1e6), format!("{:.1} %", stored * 100.0 / parameters as f64));
    writeln!(
        out,
        "{:<16} {count:>14} {density:>8} {bytes:>11} {:>9}  {} tensors",
        "all",
        "",
        packed.tensors.len()
    )?;
    if !packed.shared.is_empty() {
        writeln!(
            out,
            "\n{:>9} {:>5} {:>9}  shared in place of, before rounding",
            "error", "rank", "with it"
        )?;
        for matrix in &packed.shared {
            let [alone, with] =
                [matrix.shared_error, matrix.relative_error].map(|error| format!("{:.2} %", error * 100.0));
            writeln!(out, "{alone:>9} {:>5} {with:>9}  {}", matrix.rank, matrix.name)?;
        }
    }
    writeln!(out, "{} bytes in {name}; `kinglet inspect` shows them by part", packed.bytes.len())
}
