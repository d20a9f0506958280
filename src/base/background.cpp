// The thread that does what it is given beside everything else.
#include "base/background.hpp"

#include <string_view>
#include <utility>

namespace keyseek {

Background::~Background() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    works_.clear();
  }
  more_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Background::add(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) thread_ = std::thread(&Background::work_until_closed, this);
    works_.push_back(std::move(work));
  }
  more_.notify_one();
}

void Background::work_until_closed() {
  const Execution run = {
      .threads = 1,
      .progress = [this](std::string_view, std::size_t, std::size_t) { return !closing_; }};
  std::unique_lock lock(mutex_);
  while (true) {
    more_.wait(lock, [this] { return closing_ || !works_.empty(); });
    if (closing_) return;
    Work work = std::move(works_.front());
    works_.pop_front();
    lock.unlock();
    work(run);
    work = {};  // what it holds ends without the lock
    lock.lock();
  }
}

}  // namespace keyseek
