"""What serving does for every row, in native code: sums of trees.

The code is Zig, compiled by the `ziglang` wheel when the package is built; it links nothing, and Python calls it by
ctypes, without the interpreter's lock. Whatever comes from outside is checked here before an index in it is followed
there.
"""
