"""What the lines of a build's log say about why the build failed, as data.

The first rule that matches anything in a log decides. So what leaves no doubt comes first (a full
disk), then what somebody can install (a header, a library), then what has to be changed in the
package, and last what only says that something failed.

A pattern is searched for in a few lines at a time, without time, colour and indentation. It must
take linear time: the logs are from strangers. Every change raises `note.VERSION`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NEEDLES = (
    b"rror:",
    b"RROR",
    b"rror[",
    b"rror\x1b",  # a compiler that colours its output
    b"Error ",
    b"xception",
    b"Killed",
    b"memory",
    b"signal",
    b"No space left",
    b"timed out",
    b"not found",
    b"No such file",
    b"upported",
    b"FAILED",
)
"""One of these is in, or near, every line that a rule is for. Each costs time for the whole log."""


class Rule(NamedTuple):
    """What a line of a log means.

    Attributes:
        category: of the reason.
        words: one of them is in whatever the pattern matches; looking for them is much quicker.
        pattern: its group, if it has one, is the detail; of several, the one that matched.
        example: of what it matches.
        detail: of the example.
        last: of several matches in a log, the last one counts, not the first: of the exceptions of
            Python, the last one ended the build.
    """

    category: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]
    example: str
    detail: str = ""
    last: bool = False


def _rule(
    category: str, words: str, pattern: str, example: str, detail: str = "", last: bool = False
) -> Rule:
    compiled = re.compile(pattern, re.MULTILINE)
    return Rule(category, tuple(words.split("|")), compiled, example, detail, last)


RULES = (
    # The machine that built it
    _rule(
        "disk-full",
        "No space left|Errno 28|quota exceeded|disk is full",
        r"No space left on device|\[Errno 28\]|Disk quota exceeded|database or disk is full",
        "OSError: [Errno 28] No space left on device",
    ),
    _rule(
        "out-of-memory",
        "signal|Killed",
        r"Killed signal terminated program (\S+)|internal compiler error: Killed \(program (\S+?)\)"
        r"|\b(\w{1,50}) terminated with signal 9\b",
        "c++: fatal error: Killed signal terminated program cc1plus",
        "cc1plus",
    ),
    _rule(
        "out-of-memory",
        "memory|MemoryError|Errno 12|bad_alloc|SIGKILL|(signal: 9|Killed|code=137",
        r"virtual memory exhausted|out of memory|\[Errno 12\]|^MemoryError\b|: MemoryError\b"
        r"|std::bad_alloc|memory allocation of \d+ bytes failed|SIGKILL|\(signal: 9\b"
        r"|[Cc](?:annot|ould not|an't) allocate (?:\d+ bytes|memory)|^Killed$|: Killed$"
        r"|^FAILED: \[code=137\]|: memory exhausted$"
        r"|^(?:\S*/)?(cc1(?:plus)?|lto1|ld|rustc): out of memory",
        "virtual memory exhausted: Cannot allocate memory",
    ),
    _rule(
        "timeout",
        "timed out|TimeoutExpired",
        r"(?<!read )timed out after (\d[\d.]* (?:seconds|s|minutes|hours))\b"
        r"|TimeoutExpired\b(?![^\n]*timed out after)"
        r"|[Bb]uild (?:was )?timed out",
        "Command '['pip3', 'wheel', 'example']' timed out after 10800 seconds",
        "10800 seconds",
    ),
    _rule(
        "crash",
        "fault|Bus error|Illegal instruction|Aborted|died with|(signal",
        r"internal compiler error: (Segmentation fault|Bus error|Illegal instruction|Aborted)"
        r"|^(?:.{0,80}[: ])?(Segmentation fault|Illegal instruction|Bus error|Aborted)"
        r"(?: \(core dumped\))?$"
        r"|died with <Signals\.(SIG\w+)|\(signal: \d+, (SIG\w+)",
        "gcc: internal compiler error: Segmentation fault signal terminated program cc1",
        "Segmentation fault",
    ),
    # What the package is not made for
    _rule(
        "requires-python",
        "a different Python",
        r"requires a different Python: \S+ not in '?([^'\n]+?)'?$",
        "ERROR: Package 'example' requires a different Python: 3.9.2 not in '>=3.10'",
        ">=3.10",
    ),
    _rule(
        "requires-python",
        "supported|requires Python|Requires Python|required|unsuitable version",
        r"[Oo]nly versions? ([<>=!~][<>=!~\d., ]*\d) (?:is|are) supported"
        r"|([Pp]ython \d\.\d+\+?(?: and| or)?(?: later| newer| above| higher)? (?:is|are) not"
        r"(?: yet)? supported)"
        r"|[Rr]equires Python ?((?:[<>=!~]=? ?)?\d[\d.]*\+?(?:, ?[<>=!~]=? ?\d[\d.]*)*)"
        r"|[Pp]ython (?:version )?([<>=]{0,2} ?\d\.\d[\d.]*\+?(?:, ?[<>=!~]{1,2} ?\d[\d.]*)*)"
        r"(?: or \S+)?(?: is| or .{0,30}are)? required"
        r"|Could NOT find Python3?: Found unsuitable version \"[\d.]+\", but required is\s+"
        r"(?:at\s+least|exact\s+version)\s+\"([\d.]+)\"",
        "RuntimeError: Cannot install on Python version 3.11.2; only versions >=3.7,<3.11 are"
        " supported.",
        ">=3.7,<3.11",
    ),
    _rule(
        "unsupported-platform",
        ".h: No such file",
        r"fatal error: ((?:[a-z]*mmintrin|immintrin|x86intrin|cpuid|windows|Windows|winsock2|direct"
        r"|io|conio|mach/\w+|CoreFoundation/\w+|TargetConditionals|sys/sysctl)\.h)\b",
        "src/fast.c:2:10: fatal error: immintrin.h: No such file or directory",
        "immintrin.h",
    ),
    _rule(
        "unsupported-platform",
        "option",
        r"unrecognized (?:command[- ]line option|argument in option) ['\"](-m[\w.=+-]+)['\"]",
        "gcc: error: unrecognized command-line option '-mavx2'; did you mean '-mabi='?",
        "-mavx2",
    ),
    _rule(
        "unsupported-platform",
        "not a supported wheel",
        r"(?<!\S)(\S+\.whl is not a supported wheel) on this platform",
        "ERROR: example-1.0-cp311-cp311-linux_x86_64.whl is not a supported wheel on this"
        " platform.",
        "example-1.0-cp311-cp311-linux_x86_64.whl is not a supported wheel",
    ),
    _rule(
        "unsupported-platform",
        "nsupported|UNSUPPORTED|nknown|nrecognized",
        r"^(?:.{0,300}(?:rror|xception|ERROR)\b:? ?)?[\"#]*+(?:error )?\"?("
        r".{0,120}\b(?:[Uu]nsupported|UNSUPPORTED|[Uu]nknown|[Uu]nrecognized) (?:\w+ )?"
        r"(?:platform|architecture|CPU|cpu|processor|machine|arch|operating system|OS|system)\b"
        r".{0,120}?)\"?$",
        "RuntimeError: Unsupported architecture: armv7l",
        "Unsupported architecture: armv7l",
    ),
    _rule(
        "unsupported-platform",
        "supported",
        r"^.{0,300}(?:rror|xception|ERROR)\b:? ?\"?("
        r".{0,120}\b(?:[Pp]latform|[Aa]rchitecture|armv\d\w*|arm|ARM|[Ll]inux|32-bit|OS|system)\b"
        r".{0,60}\b(?:not supported|unsupported|not currently supported)\b.{0,80}?)\"?$",
        "OSError: The platform linux-armv7l is not supported",
        "The platform linux-armv7l is not supported",
    ),
    _rule(
        "unsupported-platform",
        "only|equires|eeds",
        r"^.{0,300}(?:rror|xception|ERROR)\b:? ?\"?("
        r".{0,120}\b(?:only (?:\w+ )?(?:supports?|supported|works?|runs?|available|for|compatible)"
        r"|[Rr]equires?|supports? only|[Nn]eeds?)\b"
        r".{0,60}\b(?:[Ww]indows|mac ?OS|Mac OS|OS ?X|Darwin|x86(?:_64)?|x64|amd64|AMD64|64-?bits?"
        r"|arm64|aarch64)\b.{0,80}?)\"?$",
        "OSError: this package only supports Windows",
        "this package only supports Windows",
    ),
    _rule(
        "unsupported-platform",
        "for linux|for arm|for aarch64",
        r"(No [\w-]{1,20}(?: [\w-]{1,20}){0,3} for (?:[Ll]inux|arm|aarch64)[^\n]{0,60}?)[\"'.)]*$",
        "No binaries available for linux-armv7l",
        "No binaries available for linux-armv7l",
    ),
    # What is missing on the machine
    _rule(
        "missing-header",
        "No such file|file not found|include file|fatal error",
        r"(?:fatal error|catastrophic error|error): ['\"]?"
        r"(?![^\s'\"]*\.(?:c|cc|cpp|cxx|f|f90|[sS]|pyx|py)\b['\"]?:)([\w./+-]+?)['\"]?:"
        r" (?:No such file or directory|file not found)$"
        r"|fatal error: '([\w./+-]+)' file not found|[Cc]annot (?:open|find) include file:? '(\S+)'"
        r"|^\S+: error: ([\w./+-]+\.(?:h|hpp|hh)): No such file or directory"
        r"|fatal error: ([\w./+-]+\.(?:h|hpp|hh)): [A-Z]",  # in another language
        "src/module.c:4:10: fatal error: ffi.h: No such file or directory",
        "ffi.h",
    ),
    _rule(
        "missing-header",
        "not found",
        r"'([\w./+-]+\.pxd)' not found|(?<![\w./+-])([\w./+-]+\.h)(?: header)? (?:is "
        r"|was )?not found\b",
        "src/wrapper.pyx:3:0: 'gmpy2.pxd' not found",
        "gmpy2.pxd",
    ),
    _rule(
        "missing-library",
        "cannot find",
        r"\bcannot find -l([\w.+-]+)|\bcannot find (?:/\S*/)?(lib[\w+-]+\.(?:so|a)[\w.]*)",
        "/usr/bin/ld: cannot find -lblas: No such file or directory",
        "blas",
    ),
    _rule(
        "missing-library",
        "lib|headers|Unable to load|development packages|OpenSSL",
        r"\b(lib[\w.+-]{1,100}\.so[\w.]*): cannot open shared object file"
        r"|headers or library files could not be found for (\w[\w.+-]*)"
        r"|Unable to load dependency (\w[\w.+-]*)"
        r"|make sure the (\w[\w.+-]*(?: and \w[\w.+-]*)?) development packages are installed"
        r"|Could not find directory of (OpenSSL) installation",
        "ImportError: libatlas.so.3: cannot open shared object file: No such file or directory",
        "libatlas.so.3",
    ),
    _rule(
        "missing-pkg-config",
        "ependency|system library|None of the required|required packages",
        r"ERROR: [Dd]ependency ['\"]?([\w.+-]+)['\"]? (?:not found|is required but not found)"
        r"|The system library `([\w.+-]+)` required by crate"
        r"|could not find system library '([\w.+-]+)' required by"
        r"|ERROR: [Dd]ependency lookup for ([\w.+-]+) with method '\w+' failed"
        r"|None of the required '([\w.+-]+)' found|The following required packages were not found:"
        r"\s+- ([\w.+-]+)",
        'meson.build:12:0: ERROR: Dependency "cairo" not found, tried pkgconfig',
        "cairo",
    ),
    _rule(
        "missing-rust",
        "Rust|rust|Cargo|cargo|maturin",
        r"[Cc]an(?:'t| not|not) find Rust compiler"
        r"|\b[Cc]argo(?: is| was)? not (?:found|installed)"
        r"|Cargo, the Rust package manager, is not installed"
        r"|\b(?:cargo|rustc|rustup|maturin): (?:command )?not found"
        r"|No such file or directory: '(?:cargo|rustc)'|[Rr]ust (?:toolchain"
        r"|compiler)? ?(?:is |was )?"
        r"not (?:found|installed)|Unsupported platform: \d.*[Rr]ust",
        "error: can't find Rust compiler",
    ),
    _rule(
        "rust-too-old",
        "rust|Rust|edition|-Znext",
        r"requires rustc (\d[\d.]*)(?: or newer|,)|requires Rust >=(\d[\d.]*)"
        r"|Rust \S+ does not match extension requirement >=(\d[\d.]*)"
        r"|feature `(edition20\d\d)` is required|requires `(-Znext-lockfile-bump)`"
        r"|(?:is|are) not supported by the following packages?:\s+\S+ requires rustc (\d[\d.]*)"
        r"|rustc (?:version )?\S+ (?:is|does) not.{0,60}?(\d+\.\d+[\d.]*)"
        r"|minimum supported (?:Rust|rustc) version (?:is )?(\d[\d.]*)"
        r"|[Rr]ust (?:version )?(\d\.\d[\d.]*)\+? (?:or \w+ )?is required"
        r"|(edition 20\d\d|editions) (?:is|are) unstable"
        r"|older than the `(20\d\d)` edition",
        "error: package `time v0.3.37` cannot be built because it requires rustc 1.67.1 or newer,"
        " while the currently active rustc version is 1.63.0",
        "1.67.1",
    ),
    _rule(
        "cmake-too-old",
        "CMake",
        r"CMake (\d[\d.]*) or higher is required|CMake>=(\d[\d.]*) (?:is )?required"
        r"|Could not find CMake with version >=?(\d[\d.]*)"
        r"|CMake (?:version )?>= ?(\d[\d.]*) is required",
        "CMake 3.24 or higher is required. You are running version 3.18.4",
        "3.24",
    ),
    _rule(
        "missing-command",
        "not found|No such file",
        r"^(?:/?\S*/)?(?:sh|bash|dash|\w+\.sh)(?:: line)?: (?:line )?\d+: ([\w./+-]+):"
        r" (?:command )?not found"
        r"|^(?:/?\S*/)?(?:ba|da|z)?sh: ([\w./+-]+): command not found"
        r"|^([\w./+-]+): command not found"
        r"|^g?make(?:\[\d+\])?: ([\w.+-]+): (?:No such file or directory|Command not found)"
        r"|^(?:/usr/bin/)?env: ['\"]?([\w.+-]+)['\"]?: No such file"
        r"|\[Errno 2\] No such file or directory: '((?:/usr/(?:local/)?bin/)?(?:cmake|ninja"
        r"|make|swig"
        r"\d?|git|gcc|g\+\+|cc|c\+\+|clang|gfortran|go|node|npm|yarn|java|javac|mvn"
        r"|llvm-config|pg_config"
        r"|mysql_config|pkg-config|autoconf|automake|autoreconf|libtoolize|nvcc|bazel|meson"
        r"|wget|curl"
        r"|unzip|tar|patch|perl|ruby|R|qmake|sip|protoc|flex|bison|hg|svn|nasm|yasm|xcrun|dpkg"
        r"|scons"
        r"|\w+-config))'"
        r"|linker `(\S+)` not found|error: command '(\S+)' failed: No such file or directory"
        r"|unable to execute '?([\w./+-]+?)'?: No such file or directory",
        "/bin/sh: 1: swig: not found",
        "swig",
    ),
    _rule(
        "missing-command",
        "not |No |ot find|Unknown compiler|NotFoundError|rogram|nstalled",
        r"\b(pg_config|mysql_config|llvm-config|krb5-config|curl-config|xml2-config|xslt-config"
        r"|gdal-config|sdl2?-config|pcap-config|net-snmp-config|pkg-config|[Pp]kg-config)"
        r"(?: executable| command| binary| script)? (?:is |was |could )?not (?:be )?(?:found"
        r"|installed"
        r"|available)"
        r"|[Cc](?:annot|ould not|ouldn't|an't) (?:find|run|execute|locate)(?: the)?(?: command)?"
        r" ['\"`]?(\w+-config|pg_config|mysql_config|cmake|ninja|swig|git|java|go|node|npm"
        r"|gfortran|make"
        r"|nvcc|bazel|protoc|gcc|clang|meson|autoconf|libtool)\b"
        r"|ERROR: Program\(?s?\)? ['\"\[]+([\w.+-]+)['\"\]]+ (?:not found|found:)"
        r"|ERROR: (Pkg-config) (?:binary |for machine .{0,40})?not found"
        r"|ERROR: Unknown compiler\(s\): \[\[?'([\w.+-]+)'"
        r"|NinjaNotFoundError: (Ninja) |CMakeNotFoundError: (CMake|cmake)"
        r"|\b([Nn]inja|CMake|[Ss]wig|SWIG|CUDA|NVCC|Go|Java|Fortran compiler|Node\.js|npm"
        r"|Bazel|git)"
        r" (?:compiler |executable )?(?:must be|is not|was not|needs to be|is required to be"
        r"|not) (?:installed|found)\b"
        r"|No (CUDA|Java|JDK|Fortran compiler|Go|node|acceptable C compiler) (?:toolset "
        r"|runtime |was )?"
        r"found",
        "Error: pg_config executable not found.",
        "pg_config",
    ),
    _rule(
        "network",
        "http|HTTP|Retry(|Could not resolve|Failed to connect",
        r"Retry\(total=0,.{0,300}?host='([\w.-]+)'"
        r"|HTTPS?ConnectionPool\(host='([\w.-]+)'"
        r"|network request to https?://([\w.-]+)"
        r"|Could not resolve host:? ([\w.-]+)|Failed to connect to ([\w.-]+) port"
        r"|unable to access 'https?://([\w.-]+)|Could not fetch URL https?://([\w.-]+)"
        r"|(?:failed to (?:fetch|download|get)|[Ee]rror (?:downloading|fetching)|Cannot download)"
        r".{0,80}https?://([\w.-]+)",
        "fatal: unable to access 'https://github.com/example/example/': Could not resolve host:"
        " github.com",
        "github.com",
    ),
    _rule(
        "network",
        "name resolution|service not known|unreachable|refused|reset by peer|timed out"
        "|HTTP|CERTIFICATE|IncompleteRead|RemoteDisconnected|lookup address|Client Error"
        "|HASHES|Errno 11|returned error|SSLError",
        r"(Temporary failure in name resolution|Name or service not known|Network is unreachable"
        r"|Connection refused|Connection reset by peer|Read timed out|[Cc]onnection timed out"
        r"|HTTP Error \d{3}[^\n]{0,60}|HTTPError: \d{3}[^\n]{0,60}|CERTIFICATE_VERIFY_FAILED"
        r"|IncompleteRead|RemoteDisconnected|failed to lookup address|\d{3} Client Error"
        r"|THESE PACKAGES DO NOT MATCH THE HASHES|\[Errno 11[013]\]|returned error: [45]\d\d"
        r"|SSLError)",
        "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>",
        "Temporary failure in name resolution",
    ),
    _rule(
        "requires-python",
        "Requires-Python",
        r"Ignored the following versions that require a different python version:"
        r"[^\n]*Requires-Python ([<>=!~][^\s;]*)",
        "ERROR: Ignored the following versions that require a different python version: 2.0"
        " Requires-Python >=3.12",
        ">=3.12",
    ),
    _rule(
        # pip then says, as well, that there is no distribution of the package.
        "metadata-error",
        "inconsistent|invalid metadata",
        r"has (inconsistent (?:name|version): [^\n]+)\nERROR: Could not find a version"
        r"|has invalid metadata: ([^\n]+)\n(?:[^\n]*\n){1,5}ERROR: Could not find a version",
        "Requested foo==1.0 from foo-1.0.tar.gz has inconsistent version: expected '1.0', but"
        " metadata has '1.1'\nERROR: Could not find a version that satisfies the requirement foo",
        "inconsistent version: expected '1.0', but metadata has '1.1'",
    ),
    _rule(
        "no-matching-distribution",
        "No matching distribution",
        r"No matching distribution found for ([^\n]+?)(?: \(from [^\n]*\))?$",
        "ERROR: No matching distribution found for setuptools>=77",
        "setuptools>=77",
        last=True,
    ),
    _rule(
        "no-matching-distribution",
        "Could not find|DistributionNotFound",
        r"Could not find a version that satisfies the requirement ([^\n]+?)(?: \(from [^\n]*\))?$"
        r"|Could not find suitable distribution for Requirement\.parse\('([^'\n]+)'\)"
        r"|DistributionNotFound: The '([^'\n]+)' distribution was not found",
        "ERROR: Could not find a version that satisfies the requirement numpy==2.9 (from versions:"
        " 1.0)",
        "numpy==2.9",
    ),
    _rule(
        "conflicting-requirements",
        "conflicting|ResolutionImpossible|VersionConflict",
        r"Cannot install ([^\n]{1,500}?) because these package versions have conflicting"
        r" dependencies"
        r"|(ResolutionImpossible)|VersionConflict: ([^\n]+)",
        "ERROR: Cannot install example because these package versions have conflicting"
        " dependencies.",
        "example",
    ),
    _rule(
        "missing-python-module",
        "No module named|bdist_wheel|not available",
        r"(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)'?"
        r"|error: invalid command 'bdist_(wheel)'"
        r"|since (setuptools) is not available",
        "ModuleNotFoundError: No module named 'numpy'",
        "numpy",
        last=True,
    ),
    _rule(
        "missing-python-module",
        "BackendUnavailable|No module named|ython|NumPy|numpy|pybind11|cffi|scikit-build"
        "|setuptools_scm",
        r"BackendUnavailable: (?:Cannot import '([\w.]+)')?"
        r"|(?:please|Please|must|need to|[Rr]equires?|[Nn]eeds?) (?:first )?(?:install )?(?:the )?"
        r"(?i:(numpy|cython|pybind11|cffi|scikit-build|setuptools_scm))\b"
        r"(?: (?:first|before|to be installed|is required|package|>=))"
        r"|\b((?:Num[Pp]y|[Cc]ython|pybind11|cffi)) (?:is |not |must be )+(?:installed|found"
        r"|required"
        r"|available)"
        r"|^(?:.{0,80}rror: )?No module named '?([\w.]+)'?$",
        "pip._vendor.pyproject_hooks._impl.BackendUnavailable: Cannot import 'poetry.masonry.api'",
        "poetry.masonry.api",
    ),
    _rule(
        "missing-cmake-package",
        "Could NOT find|Could not find a package|By not providing",
        r"CMake Error[^\n]*\n(?:[^\n]*\n){0,2}?\s*Could NOT find (\w[\w.+-]*)"
        r"|Could not find a package configuration file provided by \"(\w[\w.+-]*)\""
        r"|By not providing \"Find(\w[\w.+-]*)\.cmake\""
        r"|^(?:Could NOT find) (\w[\w.+-]*) \(missing: [^\n]*\)\s*(?:\nCall Stack|\(Required)",
        "CMake Error at CMakeLists.txt:9 (find_package):\n"
        'Could not find a package configuration file provided by "pybind11" with any of',
        "pybind11",
    ),
    _rule(
        "missing-pkg-config",
        "Package |No package|pkg-config",
        r"Package ['\"]?([\w.+-]+?)['\"]?,? (?:required by '[^'\n]+', )?(?:was )?not found"
        r"(?: in the pkg-config search path)?"
        r"|No package '([\w.+-]+)' found|Can not find valid (pkg-config) name"
        r"|pkg-config[^\n]{0,40} ([\w.+-]+)['\"\]]* returned non-zero"
        r"|Package requirements \(([\w.+-]+)[^\n]*\) were not met",
        "Package libusb-1.0 was not found in the pkg-config search path.",
        "libusb-1.0",
    ),
    _rule(
        "missing-library",
        "ibrar|lib",
        r"[Cc](?:annot|ould not|ouldn't|an't|an not) (?:find|locate) (?:the )?['\"`]?"
        r"(lib(?!rar)[\w.+-]{2,}|\w[\w.+-]*(?= librar(?:y|ies)\b))['\"]?"
        r"|[Ll]ibrary ['\"`]?(\w[\w.+-]*?)['\"`]? (?:is |was |could )?not (?:be )?(?:found"
        r"|installed)"
        r"|[Nn]o (lib\w[\w+-]*|\w+(?= library)) (?:library )?(?:could be )?found"
        r"|(?<!Package )\b(lib(?!rar)[\w+-]{2,})(?: library)? (?:is |was )?not found"
        r"(?! in the pkg-config)",
        "Exception: could not find libmagic",
        "libmagic",
    ),
    # What the package itself lacks
    _rule(
        "missing-file",
        "No such file|file not found|No rule to make|does not exist",
        r"(?:FileNotFoundError|IOError|OSError): \[Errno 2\] No such file or directory: '([^'\n]+)'"
        r"|(?:No such file or directory|file not found): '?(?:/\S*/)?(?!-)([\w.+-]+\.(?:txt|md|rst"
        r"|toml|cfg|json|in|py|pyx|c|cpp|yml|yaml))'?$"
        r"|error: ([\w./+-]+\.(?:c|cc|cpp|cxx|f|f90|[sS]|pyx|py)): No such file or directory"
        r"|No rule to make target '([^'\n]+)'|[Rr]eadme file does not exist: (\S+)",
        "FileNotFoundError: [Errno 2] No such file or directory: 'requirements.txt'",
        "requirements.txt",
        last=True,
    ),
    _rule(
        "metadata-error",
        "setup command|setuptools-scm|Invalid|configuration error|invalid|top-level|determine"
        "|versioning|inconsistent|ConfigurationError|Python project|TOMLDecodeError|Neither"
        "|Unable|Poetry|metadata|is invalid",
        r"^(?:.{0,40}rror: )?error in [^\n]{1,80} setup command: ([^\n]+)"
        r"|InvalidVersion: ([^\n]+)|InvalidRequirement: ([^\n]+)"
        r"|configuration error: ([^\n]+?):?$|InvalidConfigError: ([^\n]+)"
        r"|invalid pyproject\.toml config: ([^\n]+?)\.?$(?!\nconfiguration error)"
        r"|(Multiple top-level (?:packages|modules) discovered) in a flat-layout"
        r"|(setuptools-scm was unable to detect version)|(versioning for this project requires"
        r" either an sdist tarball)"
        r"|^(?!WARNING)[^\n]*?(inconsistent (?:name|version): [^\n]+)|ConfigurationError: ([^\n]+)"
        r"|Built wheel for \S+ is invalid: ([^\n]+)"
        r"|(does not appear to be a Python project: [^\n]+)|TOMLDecodeError: ([^\n]+)"
        r"|(Neither 'setup\.py' nor 'pyproject\.toml' found)|(Invalid version: [^\n]+)"
        r"|(Unable to determine which files to ship inside the wheel)"
        r"|RuntimeError: (The Poetry configuration is invalid)|(metadata[^\n]{0,40} is invalid)",
        "error in example setup command: use_2to3 is invalid.",
        "use_2to3 is invalid.",
    ),
    # What failed, where nothing says why
    _rule(
        "linker-error",
        "undefined|multiple definition|relocation|not recognized|final link",
        r"undefined reference to [`'\"]?([^'\"\n]+?)['\"]?$"
        r"|multiple definition of [`'\"]([^'\"\n]+)"
        r"|(relocation R_\w+ [^\n]{0,120})|ld: ([^\n]{1,60}: file not recognized[^\n]{0,60})"
        r"|undefined symbol: ([\w@.]+)|ld: (final link failed[^\n]{0,80})",
        "main.c:(.text+0x14): undefined reference to `dlsym'",
        "dlsym",
    ),
    _rule(
        "rust-error",
        "error[E|custom build",
        r"^(error\[E\d{4}\]: [^\n]+)|^error: failed to run custom build (?:command|script) for"
        r" `([^`\n]+)`",
        "error[E0432]: unresolved import `core::simd`",
        "error[E0432]: unresolved import `core::simd`",
    ),
    _rule(
        "rust-error",
        "could not compile|failed to|metadata|maturin",
        r"could not compile `([^`\n]+)`|failed to parse (?:manifest|lock file)()"
        r"|error: (failed to select a version [^\n]+)|(cargo metadata[^\n]{0,20} failed)"
        r"|(maturin failed)",
        "error: could not compile `ring` (lib) due to 2 previous errors",
        "ring",
    ),
    _rule(
        "compiler-error",
        "rror: |.pyx:",
        r"^\S+?:\d+(?::\d+)?: (?:fatal )?error: (?!command )([^\n]+)"
        r"|^\S+?\.pyx:\d+:\d+: ([^\n]+)|^(?:gcc|g\+\+|cc|c\+\+|clang|cc1plus|cc1|\S+-gcc"
        r"|\S+-g\+\+):"
        r" (?:fatal )?error: ([^\n]+)|^(?:Fatal )?Error: ([^\n]+)\n[^\n]*f(?:90|951)?\b"
        r"|^\S+?\.[sS]:\d+: Error: ([^\n]+)|^(?:\S+: )?Error: (selected processor does not [^\n]+"
        r"|bad instruction [^\n]+)",
        "src/cparser.c:120:5: error: unknown type name 'PyThreadState'",
        "unknown type name 'PyThreadState'",
    ),
    _rule(
        "linker-error",
        "collect2|linking",
        r"collect2: (?:fatal )?error: ([^\n]+)|error: linking with `(\S+)` failed",
        "collect2: error: ld returned 1 exit status",
        "ld returned 1 exit status",
    ),
    _rule(
        "cmake-error",
        "CMake Error",
        r"CMake Error[^\n]*:\n+\s*([^\n]+)|CMake Error: ([^\n]+)",
        "CMake Error at CMakeLists.txt:3 (message):\n  This build needs submodules",
        "This build needs submodules",
    ),
    _rule(
        "meson-error",
        "meson.build",
        r"^\S*meson\.build:\d+:\d+: ERROR: ([^\n]+)",
        "../meson.build:4:0: ERROR: Problem encountered: no working compiler",
        "Problem encountered: no working compiler",
    ),
    _rule(
        "test-failed",
        "FAILED|failed|FAIL",
        r"^(FAILED \((?:failures|errors)=[^\n)]*\))|^FAILED ([\w./-]+\.py(?:::[^\s\n]+)?)"
        r"|^=+ ([^\n=]*\d failed[^\n=]*?) =+$|(?<!\d)(\d+ tests? failed) out of \d+"
        r"|^The following tests FAILED:\n\s*\d+ - (\S+)|^test result: FAILED\. ([^;\n]+)"
        r"|^# FAIL: +([1-9]\d*)",
        "FAILED (failures=1, errors=2)",
        "FAILED (failures=1, errors=2)",
    ),
    _rule(
        "configure-error",
        "configure: error",
        r"^configure: error: (?!in `)([^\n]+)",
        "configure: error: C compiler cannot create executables",
        "C compiler cannot create executables",
    ),
    _rule(
        "setup-error",
        "Error|DeprecationWarning",
        r"^((?:SyntaxError|IndentationError|TabError|NameError|AttributeError|ImportError|TypeError"
        r"|KeyError|ValueError|AssertionError|IndexError|UnicodeDecodeError|PermissionError"
        r"|NotImplementedError|DeprecationWarning|LookupError|UnboundLocalError|RecursionError"
        r"|NotADirectoryError|ZeroDivisionError)(?:: [^\n]+?)?)(?: \(/\S*\))?$",
        "SyntaxError: Missing parentheses in call to 'print'. Did you mean print(...)?",
        "SyntaxError: Missing parentheses in call to 'print'. Did you mean print(...)?",
        last=True,
    ),
    _rule(
        "setup-error",
        "Error: |Exception: |SystemExit: ",
        r"^(?:[\w.]+\.)?((?:RuntimeError|Exception|OSError|SystemExit|EnvironmentError"
        r"|\w*SetupError"
        r"|FileExistsError|FileNotFoundError|SystemError|\w+Exception|\w+Error): (?!Command\b)"
        r"[^\n]+)$",
        "RuntimeError: Set EXAMPLE_HOME first",
        "RuntimeError: Set EXAMPLE_HOME first",
        last=True,
    ),
    _rule(
        "command-failed",
        "ommand|***",
        r"CalledProcessError: Command '?\[?['\"]?(?:[./]\S{0,200}/)?([\w.+-]+)"
        r"|error: [Cc]ommand ['\"]?(?:[./]\S{0,200}/)?([\w.+-]+)['\"]? (?:failed|died)"
        r"|g?make(?:\[\d+\])?: \*\*\* \[(?:[^\]\n:]*:\d+: )?([^\]\n]+)\] Error"
        r"|command '(?:[./]\S{0,200}/)?([\w.+-]+)' (?:failed|terminated)",
        "subprocess.CalledProcessError: Command '['./autogen.sh', '-q']' returned non-zero exit"
        " status 1.",
        "autogen.sh",
    ),
)
