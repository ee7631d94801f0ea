#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::virtio::check(data));
