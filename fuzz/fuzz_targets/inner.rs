#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::inner::check(data));
