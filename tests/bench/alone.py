"""Scores a batch again and again in this process: python tests/bench/alone.py model.onnx matrix.npy

Says `ready`, then for each line of standard input, a number of seconds, how many batches it scored a second.
"""

import sys
import time

import numpy as np
import onnxruntime


def main() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    fed = {session.get_inputs()[0].name: np.load(sys.argv[2])}
    session.run(None, fed)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, count, begun = float(line), 0, time.perf_counter()
        while (took := time.perf_counter() - begun) < seconds:
            session.run(None, fed)
            count += 1
        print(count / took, flush=True)


if __name__ == "__main__":
    main()
