"""Several server processes under one that watches over them."""

from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process


class EachWithItsOwn(Multiprocess):
    """Each process listens on a socket of its own. One that takes the place of a dead one listens on all of them."""

    def init_processes(self) -> None:
        if len(self.sockets) < self.processes_num:
            super().init_processes()
            return
        for listener in self.sockets:
            process = Process(self.config, [listener])
            process.start()
            self.processes.append(process)
