# SPDX-License-Identifier: Apache-2.0
"""Every test runs on 8 simulated CPU devices, with strict shapes."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
