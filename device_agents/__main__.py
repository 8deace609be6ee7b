"""Start the agent: the zipapp's entry point, also ``python -m device_agents``."""

import sys

from device_agents.agent.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
