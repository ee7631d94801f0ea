#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::segment::check(data));
