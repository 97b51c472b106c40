"""Where events go."""

import logging

# Silent until somebody configures logging: without a handler here Python itself would print our warnings to stderr.
logging.getLogger("nexcage").addHandler(logging.NullHandler())
