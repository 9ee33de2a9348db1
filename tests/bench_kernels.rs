//! `kinglet bench kernels`: a table of numbers, whatever the machine.

mod common;

use common::run;

#[test]
fn every_kind_of_weights_has_a_time() {
    let arguments = "bench kernels --outputs 48 --inputs 64 --rounds 3 --instructions scalar";
    let (out, err) = run(&arguments.split(' ').collect::<Vec<_>>(), 0);
    assert!(err.is_empty(), "{err}");
    assert!(out.starts_with("machine "), "{out}");
    assert!(out.contains("rows x 48 outputs x 64 inputs"), "{out}");
    let (products, convolutions) = out.split_once("convolution").expect("two tables");
    let times: Vec<f64> = products.lines().filter_map(|line| number_before(line, " x  ")).collect();
    // Dense int8, int4 twice, int3 twice, then 2 kinds in 3 shapes at 4 sparsities; for many rows and for one.
    assert_eq!(times.len(), 2 * (5 + 2 * 3 * 4), "{out}");
    assert!(times.iter().all(|&speed_up| speed_up > 0.0), "{out}");
    // Two tables of one product each: its pairs cannot differ by much more than the clock does.
    assert!((0.2..5.0).contains(&times[0]), "dense beside itself: {out}");
    for words in ["int8 16x4", "int4 4x16", "int8 4x4", "50 %", "90 %"] {
        assert!(products.contains(words), "{words}: {out}");
    }
    let steps = convolutions.lines().filter(|line| line.contains("11 x 64")).count();
    assert_eq!(steps, 2, "{out}");
}

fn number_before(line: &str, end: &str) -> Option<f64> {
    line.split_once(end)?.0.split_whitespace().last()?.parse().ok()
}

#[test]
fn what_cannot_be_timed_is_refused() {
    for (arguments, message) in [
        ("--outputs 40", "multiple of 16"),
        ("--inputs 0", "multiple of 16"),
        ("--inputs many", "not a number"),
        ("--rounds 0", "0 is not in"),
        ("--instructions sse2", "unknown instruction set"),
    ] {
        let arguments: Vec<&str> = ["bench", "kernels"].into_iter().chain(arguments.split(' ')).collect();
        let (_, err) = run(&arguments, 2);
        assert!(err.contains(message), "{arguments:?}: {err}");
    }
    // What another architecture has cannot be timed here.
    let missing = if cfg!(target_arch = "x86_64") { "dotprod" } else { "avx2" };
    let (_, err) = run(&["bench", "kernels", "--instructions", missing], 2);
    assert!(err.contains("does not have these instructions"), "{err}");
}

#[test]
fn help_has_an_example() {
    let (out, _) = run(&["bench", "kernels", "--help"], 0);
    assert!(out.contains("Example:\n  kinglet bench kernels --instructions"), "{out}");
}
