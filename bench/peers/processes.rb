#!/usr/bin/env ruby
# The article's first way in Ruby: a fork for each connection, one pipe that all children write to, and
# one pipe down for each child.
#
# Mended as far as a load needs: who has left is forgotten, names are compared whole, children are
# reaped and keep no descriptors but their own, Nagle's algorithm is off, what is said is not logged.

require "socket"

Thread.abort_on_exception = true
trap("CLD", "IGNORE") # the kernel reaps

server = TCPServer.new("127.0.0.1", ENV.fetch("PORT").to_i)
server.listen(1024)
said, say = IO.pipe # every child's lines; a write of up to 4096 bytes does not mix with another
writers = []

# The parent: what any child says goes down to every child.
Thread.new do
  said.each_line do |line|
    writers.dup.each do |writer|
      writer.write(line)
    rescue Errno::EPIPE
      writers.delete(writer).close
    end
  end
end

# A child: what comes down goes to the client, but for its own lines; what the client says goes up.
def serve(socket, down, say)
  socket.setsockopt(:TCP, :NODELAY, 1)
  own = "#{socket.gets&.chomp}: "
  Thread.new do
    down.each_line { |line| socket.write(line) unless line.start_with?(own) }
    exit! # the parent has ended
  end
  socket.each_line { |line| say.write("#{own}#{line.chomp}\n") }
rescue SystemCallError
  nil # reset by the client
ensure
  exit!
end

loop do
  socket = server.accept
  down, writer = IO.pipe
  fork do
    [server, said, writer, *writers].each(&:close)
    serve(socket, down, say)
  end
  down.close
  socket.close
  writers.push(writer)
end
