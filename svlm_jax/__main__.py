"""`python -m svlm_jax` is the same as `svlm`."""

import sys

from svlm_jax.cli.main import main

sys.exit(main())
