"""The benchmarks: Order Fellow beside what people would pick instead, in one run."""
