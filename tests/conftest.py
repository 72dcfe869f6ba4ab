"""Before any test."""
import signal
import threading

# A run started in the background inherits an ignored SIGINT, and so would the programs that tests interrupt.
if threading.current_thread() is threading.main_thread(): signal.signal(signal.SIGINT, signal.default_int_handler)
