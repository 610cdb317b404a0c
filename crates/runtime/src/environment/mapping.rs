//! Which package of the Python index stands for a conda package.
//!
//! By default the one of the same name. The tables below hold what differs; they name no versions.

/// What becomes of a conda package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapping {
    /// The index has it under the same name.
    Same,
    /// The index has it under this name.
    Renamed(&'static str),
    /// Not needed; the reason is said in the log.
    Skipped(&'static str),
    /// Can't be had; the sentence says what to do instead.
    Refused(&'static str),
}

const BUNDLED: &str = "a runtime library; the wheels of the index bring their own copy";
const SYSTEM: &str = "a part of the operating system here, not of the environment";
const GPU: &str = "a GPU runtime library; the wheels of the index bring their own copy";
const PROGRAM: &str = "it is a program, not a Python package, and can't be installed from the Python package index; leave it out, or find a Python package that does the same";
const LANGUAGE: &str = "another language's run time can't be installed from the Python package index, and only Python scoring scripts are run on this platform";

/// conda name, index name.
const RENAMED: [(&str, &str); 26] = [
    ("astropy-base", "astropy"),
    ("bokeh-base", "bokeh"),
    ("dask-core", "dask"),
    ("importlib_metadata", "importlib-metadata"),
    ("keras-base", "keras"),
    ("matplotlib-base", "matplotlib"),
    ("msgpack-python", "msgpack"),
    ("opencv", "opencv-python-headless"),
    ("polars-default", "polars"),
    ("prometheus_client", "prometheus-client"),
    ("py-lightgbm", "lightgbm"),
    ("py-opencv", "opencv-python-headless"),
    ("py-xgboost", "xgboost"),
    ("py-xgboost-cpu", "xgboost"),
    ("pyarrow-core", "pyarrow"),
    ("pyqt", "pyqt5"),
    ("pytables", "tables"),
    ("python-flatbuffers", "flatbuffers"),
    ("python-graphviz", "graphviz"),
    ("pytorch", "torch"),
    ("pytorch-cpu", "torch"),
    ("ray-core", "ray"),
    ("seaborn-base", "seaborn"),
    ("tensorflow-base", "tensorflow"),
    ("tensorflow-mkl", "tensorflow"),
    ("torchvision-cpu", "torchvision"),
];

/// Packages that are left out, or that can't be had.
const SPECIAL: [(&str, Mapping); 71] = [
    ("pip", Mapping::Skipped("the platform's own installer does its work")),
    ("_libgcc_mutex", Mapping::Skipped(BUNDLED)),
    ("_openmp_mutex", Mapping::Skipped(BUNDLED)),
    ("_py-xgboost-mutex", Mapping::Skipped(BUNDLED)),
    ("_sysroot_linux-64_curr_repodata_hack", Mapping::Skipped(SYSTEM)),
    ("arrow-cpp", Mapping::Skipped(BUNDLED)),
    ("blas", Mapping::Skipped(BUNDLED)),
    ("brotli-bin", Mapping::Skipped(BUNDLED)),
    ("bzip2", Mapping::Skipped(BUNDLED)),
    ("c-ares", Mapping::Skipped(BUNDLED)),
    ("ca-certificates", Mapping::Skipped(SYSTEM)),
    ("cpuonly", Mapping::Skipped("this platform runs models on CPUs")),
    ("cudatoolkit", Mapping::Skipped(GPU)),
    ("cudnn", Mapping::Skipped(GPU)),
    ("expat", Mapping::Skipped(BUNDLED)),
    ("fontconfig", Mapping::Skipped(SYSTEM)),
    ("freetype", Mapping::Skipped(BUNDLED)),
    ("giflib", Mapping::Skipped(BUNDLED)),
    ("gmp", Mapping::Skipped(BUNDLED)),
    ("icu", Mapping::Skipped(BUNDLED)),
    ("intel-openmp", Mapping::Skipped(BUNDLED)),
    ("jpeg", Mapping::Skipped(BUNDLED)),
    ("keyutils", Mapping::Skipped(SYSTEM)),
    ("krb5", Mapping::Skipped(SYSTEM)),
    ("lcms2", Mapping::Skipped(BUNDLED)),
    ("lerc", Mapping::Skipped(BUNDLED)),
    ("llvm-openmp", Mapping::Skipped(BUNDLED)),
    ("lz4-c", Mapping::Skipped(BUNDLED)),
    ("mkl", Mapping::Skipped(BUNDLED)),
    ("mkl-service", Mapping::Skipped(BUNDLED)),
    ("mkl_fft", Mapping::Skipped(BUNDLED)),
    ("mkl_random", Mapping::Skipped(BUNDLED)),
    ("nccl", Mapping::Skipped(GPU)),
    ("ncurses", Mapping::Skipped(SYSTEM)),
    ("nomkl", Mapping::Skipped("it only chooses between conda's builds")),
    ("openblas", Mapping::Skipped(BUNDLED)),
    ("openjpeg", Mapping::Skipped(BUNDLED)),
    ("openssl", Mapping::Skipped(SYSTEM)),
    ("pcre", Mapping::Skipped(SYSTEM)),
    ("pthread-stubs", Mapping::Skipped(SYSTEM)),
    ("python_abi", Mapping::Skipped("it only chooses between conda's builds")),
    ("pytorch-cuda", Mapping::Skipped(GPU)),
    ("pytorch-mutex", Mapping::Skipped("it only chooses between conda's builds")),
    ("readline", Mapping::Skipped(SYSTEM)),
    ("snappy", Mapping::Skipped(BUNDLED)),
    ("sqlite", Mapping::Skipped(SYSTEM)),
    ("tbb", Mapping::Skipped(BUNDLED)),
    ("tk", Mapping::Skipped(SYSTEM)),
    ("xz", Mapping::Skipped(SYSTEM)),
    ("yaml", Mapping::Skipped(BUNDLED)),
    ("zlib", Mapping::Skipped(SYSTEM)),
    ("zstd", Mapping::Skipped(BUNDLED)),
    ("binutils", Mapping::Refused(PROGRAM)),
    ("compilers", Mapping::Refused(PROGRAM)),
    ("curl", Mapping::Refused(PROGRAM)),
    ("ffmpeg", Mapping::Refused(PROGRAM)),
    ("gcc", Mapping::Refused(PROGRAM)),
    (
        "gdal",
        Mapping::Refused(
            "the index has only its sources, which need the GDAL library on the machine; use rasterio or pyogrio under pip:, whose wheels bring it",
        ),
    ),
    ("git", Mapping::Refused(PROGRAM)),
    (
        "graphviz",
        Mapping::Refused(
            "in conda this is the drawing program, which the index doesn't have; the Python binding is python-graphviz in conda and graphviz under pip:",
        ),
    ),
    ("gxx", Mapping::Refused(PROGRAM)),
    ("julia", Mapping::Refused(LANGUAGE)),
    ("make", Mapping::Refused(PROGRAM)),
    ("nodejs", Mapping::Refused(LANGUAGE)),
    ("openjdk", Mapping::Refused(LANGUAGE)),
    ("openmpi", Mapping::Refused(PROGRAM)),
    ("poppler", Mapping::Refused(PROGRAM)),
    ("r-base", Mapping::Refused(LANGUAGE)),
    ("rust", Mapping::Refused(LANGUAGE)),
    ("tesseract", Mapping::Refused(PROGRAM)),
    ("wget", Mapping::Refused(PROGRAM)),
];

/// `lib…` packages of conda that are Python packages all the same.
const PYTHON_LIBS: [&str; 7] = ["libarchive-c", "libcst", "libpysal", "librosa", "libsass", "libtmux", "libusb1"];

/// What becomes of the conda package `name` (lower-case). `python` is not asked here: it is the interpreter.
pub(super) fn map(name: &str) -> Mapping {
    if let Some((_, mapping)) = SPECIAL.iter().find(|(conda, _)| *conda == name) {
        return *mapping;
    }
    if let Some((_, index)) = RENAMED.iter().find(|(conda, _)| *conda == name) {
        return Mapping::Renamed(index);
    }
    if name.starts_with("gcc_") || name.starts_with("gxx_") || name.starts_with("binutils_") {
        return Mapping::Refused(PROGRAM);
    }
    if name.starts_with("r-") {
        return Mapping::Refused(LANGUAGE);
    }
    if name.starts_with("cuda-") || name.starts_with("libcu") || name.starts_with("libnv") {
        return Mapping::Skipped(GPU);
    }
    if name.starts_with("ld_impl_")
        || name.starts_with("sysroot_")
        || name.starts_with("kernel-headers")
        || name.starts_with("xorg-")
    {
        return Mapping::Skipped(SYSTEM);
    }
    let library = name.starts_with("lib") && name.len() > 3;
    if library && !PYTHON_LIBS.contains(&name) {
        return Mapping::Skipped(BUNDLED);
    }
    if name.starts_with("aws-c-") || name.starts_with("aws-sdk-cpp") || name.starts_with("aws-checksums") {
        return Mapping::Skipped(BUNDLED);
    }
    Mapping::Same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_conda_packages() {
        let same = [
            "numpy",
            "scikit-learn",
            "scipy",
            "pandas",
            "setuptools",
            "wheel",
            "certifi",
            "tzdata",
            "libcst",
            "lib",
            "psutil",
            "cmake",
            "pyyaml",
        ];
        for name in same {
            assert_eq!(map(name), Mapping::Same, "{name}");
        }
        for (name, index) in [
            ("pytorch", "torch"),
            ("matplotlib-base", "matplotlib"),
            ("py-xgboost", "xgboost"),
            ("python-graphviz", "graphviz"),
        ] {
            assert_eq!(map(name), Mapping::Renamed(index), "{name}");
        }
        let skipped = [
            "pip",
            "cudatoolkit",
            "mkl",
            "libgcc-ng",
            "libstdcxx-ng",
            "ca-certificates",
            "openssl",
            "_libgcc_mutex",
            "ld_impl_linux-64",
            "libblas",
            "cuda-cudart",
            "aws-c-common",
            "cpuonly",
            "libcublas",
        ];
        for name in skipped {
            assert!(matches!(map(name), Mapping::Skipped(_)), "{name}");
        }
        for name in ["gcc", "gcc_linux-64", "r-base", "r-ggplot2", "ffmpeg", "graphviz", "openjdk", "nodejs"] {
            assert!(matches!(map(name), Mapping::Refused(_)), "{name}");
        }
    }

    #[test]
    fn tables_hold_each_name_once() {
        let mut names: Vec<&str> =
            RENAMED.iter().map(|(name, _)| *name).chain(SPECIAL.iter().map(|(name, _)| *name)).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.iter().all(|name| *name == name.to_ascii_lowercase()));
    }
}
