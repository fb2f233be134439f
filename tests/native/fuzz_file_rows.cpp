// Packs random directories as rows: scanned, linked, cut, read while files change, and stored once.
//
//   fuzz_file_rows COUNT SEED
//
// Built with AddressSanitizer; every array is a heap block of exactly its size. The chunks must give back every file that did not
// change, each content must be stored once, and rows must be dropped whose files changed, and no others.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "damage.h"
#include "file_rows.h"

namespace {

using namespace dumont::test;
namespace fs = std::filesystem;

constexpr uint64_t kMaxSize = 3000;
constexpr uint64_t kSlots = 256;  // for fewer files

void check(bool holds, const char* what) {
    if (!holds) fail(what);
}

// A copy in a heap block of exactly its size.
template <typename T>
std::unique_ptr<T[]> exactly(const T* items, uint64_t count) {
    std::unique_ptr<T[]> copy(new T[count]);
    if (count != 0) memcpy(static_cast<void*>(copy.get()), items, count * sizeof(T));
    return copy;
}

void write_file(const fs::path& path, const std::string& content) {
    FILE* file = fopen(path.c_str(), "wb");
    check(file != nullptr && fwrite(content.data(), 1, content.size(), file) == content.size(), "cannot write");
    fclose(file);
}

std::string random_name(Random& random) {
    std::string name;
    const uint64_t length = 1 + below(random, 12);
    while (name.size() < length) name += static_cast<char>(1 + below(random, 255));
    for (char& c : name) c = c == '/' ? '_' : c;
    if (below(random, 20) == 0) name = "." + name + ".partial";
    return name == "." || name == ".." ? "dot" : name;
}

struct Tree {
    fs::path root;
    std::map<std::string, std::string> contents;  // of files that should become rows, by name
    uint64_t names = 0;                           // in the directory

    Tree(Random& random, const fs::path& where) : root(where) {
        fs::create_directory(root);
        std::set<std::string> taken;
        for (uint64_t i = below(random, 80); i > 0; --i) {
            const std::string name = random_name(random);
            if (!taken.insert(name).second) continue;
            const fs::path path = root / name;
            const uint64_t kind = below(random, 12);
            ++names;
            if (kind == 0) {
                fs::create_directory(path);
            } else if (kind == 1) {
                fs::create_symlink("anything", path);
            } else {
                std::string content(below(random, 4) * below(random, kMaxSize / 2), static_cast<char>(below(random, 3)));
                write_file(path, content);
                const bool marked = kind == 2;
                if (marked) chmod(path.c_str(), 01600);
                const bool partial = name[0] == '.' && name.size() > 8 && name.substr(name.size() - 8) == ".partial";
                if (content.size() > kMaxSize || marked || partial) continue;
                struct stat status;
                check(stat(path.c_str(), &status) == 0, "cannot stat");
                const uint64_t allocated = static_cast<uint64_t>(status.st_blocks) * 512;
                if (content.size() <= 4096 || allocated >= content.size()) contents[name] = content;
            }
        }
    }
    ~Tree() { fs::remove_all(root); }
};

// Changes a file so that it is not as it was scanned.
void change(Random& random, const fs::path& path) {
    const uint64_t size = fs::file_size(path);
    switch (below(random, 4)) {
        case 0: fs::remove(path); break;
        case 1: fs::resize_file(path, size / 2); break;
        case 2: fs::resize_file(path, size + 1); break;
        default:
            fs::remove(path);
            check(mkfifo(path.c_str(), 0600) == 0, "cannot make a fifo");
    }
}

void run_case(Random& random, const fs::path& where) {
    Tree tree(random, where);
    const int directory = open(tree.root.c_str(), O_RDONLY | O_DIRECTORY);
    DumontListing* listing = dumont_new_listing();
    const DumontRowRules rules = {kMaxSize, 2 * kMaxSize, ".txt\0", nullptr, 0};
    for (int again = 0; again < 2; ++again) {
        check(dumont_scan_directory(listing, directory, "d/", 0, 0, &rules) == 0, "cannot scan");
    }
    const uint64_t count = listing->row_count;
    check(count == tree.contents.size(), "a plain file is no row, or a row is no plain file");
    uint64_t others = 0;
    for (uint64_t i = 0; i < listing->others_size; ++i) others += listing->others[i] == 0;
    check(others == tree.names - count, "an entry is missing");

    auto rows = exactly(listing->rows, count);
    auto names = exactly(listing->names, listing->names_size);
    auto inodes = exactly(listing->inodes, count);
    const uint64_t device = listing->device;
    dumont_free_listing(listing);

    std::set<std::string> changed;
    uint64_t row = 0;
    for (const auto& [name, content] : tree.contents) {  // in byte order, as rows are
        check(names.get() + rows[row++].path == "d/" + name, "rows are not in byte order");
        if (!content.empty() && below(random, 10) == 0) {
            change(random, tree.root / name);
            changed.insert(name);
        }
    }

    DumontTable table = {};
    std::unique_ptr<DumontExtent[]> extents(new DumontExtent[count]);
    std::unique_ptr<DumontPiece[]> pieces(new DumontPiece[count]);
    std::unique_ptr<uint32_t[]> slots(new uint32_t[kSlots]());
    table.entries = rows.get();
    table.entry_count = count;
    table.names = names.get();
    table.extents = extents.get();
    table.pieces = pieces.get();

    std::vector<std::string> chunks;
    const uint64_t chunk_size = kMaxSize + below(random, 20000);
    for (uint64_t first = 0; first < count;) {
        uint64_t size = 0;
        const uint64_t end = dumont_cut_rows(rows.get(), first, count, chunk_size, 1 + below(random, 30), &size);
        const uint64_t number = end - first;
        check(number > 0 && size <= chunk_size, "a chunk without rows, or too large");
        std::unique_ptr<uint8_t[]> raw(new uint8_t[size]);
        std::unique_ptr<uint64_t[]> begins(new uint64_t[number]), sizes(new uint64_t[number]);
        std::unique_ptr<int32_t[]> results(new int32_t[number]);
        std::unique_ptr<uint8_t[]> digests(new uint8_t[32 * number]);
        const uint64_t read = dumont_read_rows(directory, device, rows.get() + first, names.get(), inodes.get() + first,
                                               number, raw.get(), size, 0, begins.get(), sizes.get(), results.get());
        check(read <= size, "more was read than there is room for");
        check(dumont_blake3_many(raw.get(), read, begins.get(), sizes.get(), number, digests.get()) == 0, "no digests");
        if (below(random, 3) == 0) dumont_index_pieces(pieces.get(), table.piece_count, slots.get(), kSlots);
        const uint64_t left =
            dumont_share_rows(&table, first, number, static_cast<uint32_t>(chunks.size()), raw.get(), begins.get(),
                              sizes.get(), digests.get(), slots.get(), kSlots);
        chunks.emplace_back(reinterpret_cast<char*>(raw.get()), left);
        first = end;
    }

    std::set<std::string> distinct;
    uint64_t stored = 0, expected = 0;
    for (const std::string& chunk : chunks) stored += chunk.size();
    row = 0;
    for (const auto& [name, content] : tree.contents) {
        const DumontEntry& entry = rows[row++];
        check((entry.type == DUMONT_DROPPED) == (changed.count(name) == 1), "dropped for nothing, or not dropped");
        if (entry.type == DUMONT_DROPPED) continue;
        check(entry.extent_count == (content.empty() ? 0 : 1), "a file has one extent, or no bytes");
        if (content.empty()) continue;
        const DumontPiece& piece = pieces[extents[entry.first].piece];
        check(chunks[piece.chunk].substr(piece.chunk_offset, piece.length) == content, "a file has other bytes");
        if (distinct.insert(content).second) expected += content.size();
    }
    check(stored == expected, "a content is stored twice");
    close(directory);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        fprintf(stderr, "fuzz_file_rows COUNT SEED\n");
        return 2;
    }
    char where[] = "/tmp/fuzz_file_rows.XXXXXX";
    check(mkdtemp(where) != nullptr, "no temporary directory");
    Random random(strtoull(argv[2], nullptr, 10));
    const uint64_t count = strtoull(argv[1], nullptr, 10);
    for (uint64_t i = 0; i < count; ++i) run_case(random, fs::path(where) / "tree");
    fs::remove_all(where);
    printf("%s directories packed as rows\n", argv[1]);
}
