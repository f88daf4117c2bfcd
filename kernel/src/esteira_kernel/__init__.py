"""What serving does for every row, in native code: sums of trees, and rows read from JSON.

The code is Zig, compiled when the package is built by the compiler of the `ziglang` wheel; it links nothing, and Python
calls it by ctypes without the interpreter's lock. Whatever comes from outside is checked here before an index in it is
followed there.
"""
