"""Where asyncio and threads begin: the writer, followers, and subscriptions."""
