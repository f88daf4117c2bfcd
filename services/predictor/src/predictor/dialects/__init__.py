"""The wire forms that other serving systems speak, over the one data plane of `predictor.inference`."""
