"""C++ sources of the native runner, which speaks the agent's protocol without Python."""
