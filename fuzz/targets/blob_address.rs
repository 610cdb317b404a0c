//! Paths of containers and blobs, and signatures for them: a directory, a query and a path, each on a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (directory, query, path) = (line(), line(), line());
    casemate_blob::fuzz::address(path);
    casemate_blob::fuzz::signature(directory, query, path);
});
