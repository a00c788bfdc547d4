//! The program that measures time.

fn main() -> anyhow::Result<()> {
    evenkeel_bench::run(None)
}
